package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newHistory(o *options) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "history REGISTRY/REPOSITORY:TAG",
		Short: "Show what a tag named, and when",
		Long: `Show every digest a tag was known to name, when, and how that was learnt, newest
first. With --at, what it named at that time.`,
		Example: `  twinport history eu/team/app:prod
  twinport history eu/team/app:prod --at 2026-01-31T14:05:00Z`,
		Args: exactly(1, "one REGISTRY/REPOSITORY:TAG"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			var when *time.Time
			if at != "" {
				t, err := parseTime(at)
				if err != nil {
					return usage(err)
				}
				when = &t
			}
			d, err := openReading(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				h, err := op.History(cmd.Context(), args[0], when)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if o.output == "json" {
					return printJSON(w, h)
				}
				if len(h.History) == 0 {
					_, err := fmt.Fprintln(w, "nothing is known of this tag")
					return err
				}
				g := newGrid(w, "AT", "DIGEST", "HOW")
				for _, s := range h.History {
					digest := deref(s.Digest)
					if digest == "" {
						digest = "(deleted)"
					}
					g.row(s.At.Format(time.RFC3339), digest, s.Cause)
				}
				return g.flush()
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "what it named at this `time` (RFC 3339, or \"2026-01-31 14:05\" local time)")
	return cmd
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--at %.40q is no time; write 2026-01-31T14:05:00Z or \"2026-01-31 14:05\"", s)
}
