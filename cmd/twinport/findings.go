package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/journal"
)

func newFindings(o *options) *cobra.Command {
	return group("findings", "List what a person should know, and acknowledge it",
		"A finding is something a person should know: a conflict, drift, a refusal, damaged content.",
		newFindingsList(o), newFindingsAck(o))
}

func newFindingsList(o *options) *cobra.Command {
	filter := journal.FindingFilter{Limit: 100}
	var kind string
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List findings, newest first", Args: noArgs,
		Long: "List findings that nobody has acknowledged yet, newest first; --all shows the others too.",
		Example: `  twinport findings list
  twinport findings list --kind conflict --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			filter.Kind = replicator.FindingKind(kind)
			if !all {
				open := false
				filter.Acknowledged = &open
			}
			if filter.Limit < 1 || filter.Limit > 1000 {
				return usage(fmt.Errorf("--limit %d: from 1 to 1000", filter.Limit))
			}
			d, err := openReading(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				found, err := op.Findings(cmd.Context(), filter)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if o.output == "json" {
					return printJSON(w, found)
				}
				if len(found.Findings) == 0 {
					_, err := fmt.Fprintln(w, "no findings")
					return err
				}
				if err := printFindings(w, found.Findings); err != nil {
					return err
				}
				if found.Next != nil {
					fmt.Fprintf(w, "more: --after %s\n", *found.Next)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "only of this `kind`")
	cmd.Flags().StringVar(&filter.Route, "route", "", "only of this `route`")
	cmd.Flags().StringVar(&filter.Registry, "registry", "", "only at this `registry`")
	cmd.Flags().BoolVar(&all, "all", false, "acknowledged ones too")
	cmd.Flags().IntVar(&filter.Limit, "limit", filter.Limit, "at most this `number`, up to 1000")
	cmd.Flags().StringVar(&filter.After, "after", "", "the page after this `next`")
	return cmd
}

func printFindings(w io.Writer, findings []api.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	g := newGrid(w, "ID", "KIND", "LAST TOLD", "TIMES", "ROUTE", "WHERE", "MESSAGE", "WHAT TO DO")
	for _, f := range findings {
		where := f.Registry
		if f.Repository != "" {
			where += "/" + f.Repository
		}
		if f.Tag != "" {
			where += ":" + f.Tag
		}
		g.row(f.ID, string(f.Kind), ago(&f.At), fmt.Sprint(f.Count), f.Route, where, f.Message, f.Hint)
	}
	return g.flush()
}

func newFindingsAck(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ack ID...", Short: "Acknowledge findings",
		Long:    "Acknowledge findings: they are no longer listed. Acknowledging a refusal holds its job, so that it no longer counts for lag.",
		Example: `  twinport findings ack 01JQ4… 01JQ5…`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("`twinport findings ack` takes one or more IDs"))
			}
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openWriting(cmd.Context(), cfg, false)
			return with(d, err, func(op api.Operator) error {
				changed, err := op.Acknowledge(cmd.Context(), args, actorName())
				if err != nil {
					return err
				}
				return printChanged(cmd, o, changed, len(args))
			})
		},
	}
}
