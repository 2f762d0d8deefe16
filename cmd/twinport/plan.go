package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newPlan(o *options) *cobra.Command {
	var exitCode, all bool
	cmd := &cobra.Command{
		Use:   "plan [ROUTE...]",
		Short: "Show what a sync would do, and why the rest is left out",
		Long: `Show what a sync would copy, move, create, delete or refuse, and for each tag
that is left out the reason. Nothing is changed or created anywhere.

Sizes are those of the images at the source: an upper bound, since blobs that a
destination has already are not sent again.`,
		Example: `  twinport plan
  twinport plan prod --all
  twinport plan --exit-code --output json`,
		ValidArgsFunction: completeRoutes(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openPlanning(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				result, err := op.Plan(cmd.Context(), args)
				if err != nil {
					return err
				}
				err = printPlan(cmd.OutOrStdout(), o, result, all)
				if err := errors.Join(err, result.Close()); err != nil {
					return err
				}
				if exitCode && !result.Empty() {
					return exitError{code: exitFailed}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit 1 when there is something to do")
	cmd.Flags().BoolVar(&all, "all", false, "show what is skipped too, with the reason (JSON always does)")
	return cmd
}

// gridRows is how many rows a long table aligns at a time.
const gridRows = 1000

func printPlan(w io.Writer, o *options, p *api.Plan, all bool) error {
	if o.output == "json" {
		return p.WriteJSON(w)
	}
	counts := make(map[string]int)
	var bytes int64
	var g *grid
	rows := 0
	err := p.Each(func(a api.Action) error {
		counts[a.Action]++
		bytes += a.Bytes
		if a.Action == "skip" && !all {
			return nil
		}
		if g == nil {
			g = newGrid(w, "ACTION", "ROUTE", "DESTINATION", "REPOSITORY", "TAG", "DIGEST", "SIZE", "REASON")
		}
		to := a.DestinationRepository
		if to == "" {
			to = a.Repository
		}
		shown := ""
		if a.Bytes > 0 {
			shown = size(a.Bytes)
		}
		g.row(a.Action, a.Route, a.Destination, to, a.Tag, short(a.Digest), shown, a.Reason)
		if rows++; rows%gridRows == 0 {
			return g.flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if g != nil {
		if err := g.flush(); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "%d to copy, %d to move, %d to create, %d to delete, %d refused, %d skipped; at most %s; %d requests to find out\n",
		counts["copy"], counts["move"], counts["create"], counts["delete"], counts["refuse"], counts["skip"], size(bytes), p.Requests)
	return err
}
