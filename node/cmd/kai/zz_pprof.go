//go:build kaipprof

package main

import (
	"net/http"
	_ "net/http/pprof"
	"os"
)

func init() { go http.ListenAndServe(os.Getenv("PPROF_LISTEN"), nil) }
