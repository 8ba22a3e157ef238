package store

import "io"

// Disk is a flat directory of files for the commit log.
type Disk interface {
	// Create makes a file of size bytes, all zero, with its space allocated so that writes within it
	// need none. Its content and name need not be durable. The name must be free.
	Create(name string, size int64) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// List names all files.
	List() ([]string, error)
	// Rename renames, replacing; both are durable on return.
	Rename(from, to string) error
	// Remove deletes; after a crash the file may be back.
	Remove(name string) error
	// Free is the number of bytes that can still be written.
	Free() (uint64, error)
}

// File is an open file of a Disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteSync writes p at off, within the file, and makes it durable; not what else was written. What
	// follows p in its block of 4096 bytes may become zero. After an error the content is unknown. It
	// blocks; one at a time on a disk.
	WriteSync(p []byte, off int64) error
	// Sync makes all writes durable. After an error the content is unknown.
	Sync() error
	Size() (int64, error)
	Close() error
}
