package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

// newPause is pause, or resume.
func newPause(o *options, pause bool) *cobra.Command {
	use, short := "resume", "Let a paused route go on"
	long := "Let a paused route go on: what was queued meanwhile is due at once."
	if pause {
		use, short = "pause", "Stop a route from copying; its webhooks are still taken"
		long = "Stop a route from copying. Its webhooks are still taken and queued, and its lag grows. The pause is kept in the journal and outlives restarts."
	}
	return &cobra.Command{
		Use: use + " ROUTE", Short: short, Long: long, Args: exactly(1, "one route's name"),
		Example:           "  twinport " + use + " prod",
		ValidArgsFunction: completeRoutes(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openWriting(cmd.Context(), cfg, steering)
			return with(d, err, func(op api.Operator) error {
				result, err := op.SetPaused(cmd.Context(), args[0], pause, actorName())
				if err != nil {
					return err
				}
				if o.output == "json" {
					return printJSON(cmd.OutOrStdout(), result)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "route %s: %sd\n", result.Route, use)
				return err
			})
		},
	}
}

// completeRoutes offers the config's routes.
func completeRoutes(o *options) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, err := loadConfig(o)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, r := range cfg.Routes {
			names = append(names, r.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
