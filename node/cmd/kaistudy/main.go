// Command kaistudy measures what grows with a cluster: the map that each node keeps of it, its exchange,
// plans and moves, and the links between nodes; and draws the figures (node/DESIGN.md, "How large").
//
//	kaistudy -figures F -gossip G -plot P   measure, add what gossip costs, write F, draw P
//	kaistudy -figures F -plot P -draw       draw what F holds
//
// "make study" runs all of it. It measures the real code, but nothing here is a cluster: see nodetest.
package main

import (
	"flag"
	"fmt"
	"os"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	flags := flag.NewFlagSet("kaistudy", flag.ContinueOnError)
	path := flags.String("figures", "figures.csv", "file of the figures")
	gossip := flags.String("gossip", "", "file of gossip's figures, to be added (see TestStudyGossip)")
	plot := flags.String("plot", "study.svg", "file of the picture")
	draw := flags.Bool("draw", false, "measure nothing, draw what the file of figures holds")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if err := study(*path, *gossip, *plot, *draw); err != nil {
		fmt.Fprintln(os.Stderr, "kaistudy:", err)
		return exitFailed
	}
	return exitOK
}

func study(path, gossip, plot string, draw bool) error {
	if !draw {
		var all figures
		if gossip != "" {
			told, err := readFigures(gossip)
			if err != nil {
				return err
			}
			all = told
		}
		for _, nodes := range []int{3, 10, 30, 100, 300, 1000} {
			for _, partitions := range []int{1024, 4096, 16384, 65536} {
				studyMap(&all, nodes, partitions)
				fmt.Fprintf(os.Stderr, "%d nodes, %d partitions\n", nodes, partitions)
			}
			if err := studyLinks(&all, nodes); err != nil {
				return err
			}
		}
		if err := all.write(path); err != nil {
			return err
		}
	}
	all, err := readFigures(path)
	if err != nil {
		return err
	}
	return os.WriteFile(plot, picture(all), 0o644)
}
