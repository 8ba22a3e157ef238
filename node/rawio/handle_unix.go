//go:build unix && !linux

package rawio

type handle = int
