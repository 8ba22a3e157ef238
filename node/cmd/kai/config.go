package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a app) configCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the settings that a node started here would have",
		Long: `Show every setting that a node started in this environment would have: its value,
where that comes from (default, env, derived), and what it means. Secrets are masked.
A wrong environment is reported as a node would report it, with exit code 2.`,
		Example: `  kai config
  KAI_QUORUM=5:3:3 kai config -o json | jq '.[] | select(.source == "env")'`,
		Args: cobra.NoArgs,
	}
	o.addTo(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := a.config()
		if err != nil {
			return err
		}
		if o.format == formatJSON {
			return printJSON(a.stdout, c.Settings())
		}
		rows := [][]string{{"VARIABLE", "VALUE", "SOURCE", "MEANING"}}
		for _, s := range c.Settings() {
			rows = append(rows, []string{s.Name, orDash(s.Value), s.Source, s.Meaning})
		}
		a.printer().table(rows)
		return nil
	}
	return cmd
}

func (a app) versionLine() string {
	return fmt.Sprintf("kai %s %s %s/%s", a.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func (a app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this build", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a.printer().line(a.versionLine())
			return nil
		},
	}
}
