package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
)

func newFindings(o *options) *cobra.Command {
	return group("findings", "List what a person should know, and acknowledge it",
		"A finding is something a person should know: a conflict, drift, a refusal, damaged content.",
		newFindingsList(o), newFindingsAck(o))
}

func newFindingsList(o *options) *cobra.Command {
	var kind, route, registry, after string
	limit := 100
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
			q := url.Values{
				"kind": {kind}, "route": {route}, "registry": {registry}, "after": {after}, "limit": {fmt.Sprint(limit)},
			}
			if !all {
				q.Set("acknowledged", "false")
			}
			filter, err := api.FindingFilter(q)
			if err != nil {
				return classified(err)
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
	cmd.Flags().StringVar(&route, "route", "", "only of this `route`")
	cmd.Flags().StringVar(&registry, "registry", "", "only at this `registry`")
	cmd.Flags().BoolVar(&all, "all", false, "acknowledged ones too")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this `number`, up to 1000")
	cmd.Flags().StringVar(&after, "after", "", "the page after this `next`")
	kinds := make([]string, 0, len(replicator.FindingKinds))
	for _, k := range replicator.FindingKinds {
		kinds = append(kinds, string(k))
	}
	_ = cmd.RegisterFlagCompletionFunc("kind", fixed(kinds...)) // the flag exists
	return cmd
}

func printFindings(w io.Writer, findings []api.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	g := newGrid(w, "ID", "KIND", "LAST TOLD", "TIMES", "ROUTE", "WHERE", "MESSAGE", "WHAT TO DO")
	for _, f := range findings {
		where := deref(f.Registry)
		if f.Repository != nil {
			where += "/" + *f.Repository
		}
		if f.Tag != nil {
			where += ":" + *f.Tag
		}
		g.row(f.ID, string(f.Kind), ago(&f.At), fmt.Sprint(f.Count), deref(f.Route), where, f.Message, f.Hint)
	}
	return g.flush()
}

func newFindingsAck(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ack ID...", Short: "Acknowledge findings",
		Long:    "Acknowledge findings: they are no longer listed. Acknowledging a refusal holds its job, so that it no longer counts for lag.",
		Example: `  twinport findings ack 361r54rvz1600 361r54tczqg00`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("`twinport findings ack` takes one or more IDs"))
			}
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openWriting(cmd.Context(), cfg, steering)
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
