package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine describes where figures come from, in one line. dir is where the data lies.
func machine(dir string) string {
	parts := []string{fmt.Sprintf("%d cores (%s)", runtime.NumCPU(), cpuModel()), kernel(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if v := memcachedVersion(); v != "" {
		parts = append(parts, v)
	}
	if fs := filesystem(dir); fs != "" {
		parts = append(parts, "data on "+fs)
	}
	return strings.Join(parts, ", ")
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

// filesystem is the type of file system that dir lies on: fsync costs nothing on a tmpfs.
func filesystem(dir string) string {
	b, _ := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	return strings.TrimSpace(string(b))
}
