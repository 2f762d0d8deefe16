package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newStatus(o *options) *cobra.Command {
	var behind bool
	var route, destination string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how far each destination of each route is behind",
		Long: `Show how far each destination of each route is behind, and whether its RPO is
met, missed, unknown (nobody could have noticed a lost push) or seeding (the
first pass is not proven yet). Unknown is never met: the exit code is 1 for
missed and unknown.

LAG is now minus the earliest push that no proof covers. With --behind, each tag
that is not proven is listed with the reason. Manifests that were pushed by
digest alone are known by their events only: where a registry lists nothing but
tags, no sweep can find one whose event was lost.`,
		Example: `  twinport status
  twinport status --behind --route prod
  twinport status --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !behind && (route != "" || destination != "") {
				return usage(errors.New("--route and --destination select what --behind lists"))
			}
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openReading(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				status, err := op.Status(cmd.Context())
				if err != nil {
					return err
				}
				if behind {
					err = printBehind(cmd, o, op, route, destination)
				} else {
					err = printStatus(cmd.OutOrStdout(), o, status)
				}
				if err != nil {
					return err
				}
				for _, r := range status.Routes {
					if r.State == "missed" || r.State == "unknown" {
						return exitError{code: exitFailed}
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&behind, "behind", false, "list each tag that is not proven, and why")
	cmd.Flags().StringVar(&route, "route", "", "with --behind: only this `route`")
	cmd.Flags().StringVar(&destination, "destination", "", "with --behind: only at this `registry`")
	return cmd
}

func printStatus(w io.Writer, o *options, s api.Status) error {
	if o.output == "json" {
		return printJSON(w, s)
	}
	g := newGrid(w, "ROUTE", "DESTINATION", "RPO", "STATE", "LAG", "PROVEN", "WAITING", "RUNNING", "FAILED", "REFUSED", "HELD", "LAST SWEEP", "LAST PROOF")
	for _, r := range s.Routes {
		rpo := "none"
		if r.RPO != nil {
			rpo = seconds(*r.RPO)
		}
		state := r.State
		if r.Paused {
			state += " (paused)"
		}
		g.row(r.Route, r.Destination, rpo, state, seconds(r.Lag), n(r.Proven), n(r.Waiting), n(r.Running), n(r.Failed), n(r.Refused), n(r.Held), ago(r.LastSweep), ago(r.LastProof))
	}
	if err := g.flush(); err != nil {
		return err
	}
	for _, r := range s.Routes {
		if r.Reason != "" {
			fmt.Fprintf(w, "%s at %s: %s\n", r.Route, r.Destination, plain(r.Reason))
		}
	}
	for _, r := range s.Routes {
		if r.Unconfirmed > 0 {
			fmt.Fprintf(w, "%s at %s: %d of the proven were moved to the newest push known while %s does not answer; checked when it does\n",
				plain(r.Route), plain(r.Destination), r.Unconfirmed, plain(r.Source))
		}
	}
	for _, r := range s.Routes {
		if r.Deletions != nil && r.Deletions.Waiting+r.Deletions.Held > 0 {
			fmt.Fprintf(w, "%s at %s: %d tags are gone at %s and wait for their grace to be deleted; %d are kept, as `twinport findings list --kind delete-held` says\n",
				plain(r.Route), plain(r.Destination), r.Deletions.Waiting, plain(r.Source), r.Deletions.Held)
		}
	}
	if s.Daemon == nil {
		fmt.Fprintln(w, "no daemon answered: this is what the journal says")
	}
	return nil
}

func n(v int64) string { return fmt.Sprint(v) }

func printBehind(cmd *cobra.Command, o *options, op api.Operator, route, destination string) error {
	w := cmd.OutOrStdout()
	all := api.Behind{Behind: []api.BehindTag{}}
	const page = 1000
	for after := ""; ; {
		b, err := op.Behind(cmd.Context(), route, destination, after, page)
		if err != nil {
			return err
		}
		all.Behind = append(all.Behind, b.Behind...)
		if after = b.Next; after == "" || len(all.Behind) >= 100*page {
			all.Next = after
			break
		}
	}
	if o.output == "json" {
		return printJSON(w, all)
	}
	if len(all.Behind) == 0 {
		_, err := fmt.Fprintln(w, "nothing is behind")
		return err
	}
	g := newGrid(w, "ROUTE", "DESTINATION", "REPOSITORY", "TAG", "WANTED", "PROVEN", "PUSHED", "WHY")
	for _, b := range all.Behind {
		g.row(b.Route, b.Destination, b.Repository, b.Tag, short(b.Wanted), short(b.Proven), ago(b.PushedAt), b.Why)
	}
	if err := g.flush(); err != nil {
		return err
	}
	if all.Next != "" {
		_, err := fmt.Fprintf(w, "these are the first %d; --route and --destination select\n", len(all.Behind))
		return err
	}
	return nil
}
