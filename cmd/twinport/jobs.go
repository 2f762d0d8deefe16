package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/journal"
)

func newJobs(o *options) *cobra.Command {
	return group("jobs", "List, show, retry and cancel jobs",
		`A job is one destination tag (or digest) and what is wanted there. Its state is
waiting, running, failed (gave up after 24 hours), refused (a registry refuses
for good), held (by cancel, or its route is gone), done or superseded.`,
		newJobsList(o), newJobsShow(o), newJobsChange(o, "retry"), newJobsChange(o, "cancel"))
}

// jobFlags are the filters that jobs' commands share.
type jobFlags struct {
	states                                               []string
	route, destination, repository, tag, lane, errorKind string
}

func (f *jobFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.states, "state", nil, "only in this `state`: waiting, running, failed, refused, held, done, superseded")
	cmd.Flags().StringVar(&f.route, "route", "", "only of this `route`")
	cmd.Flags().StringVar(&f.destination, "destination", "", "only at this `registry`")
	cmd.Flags().StringVar(&f.repository, "repository", "", "only of this `repository`")
	cmd.Flags().StringVar(&f.tag, "tag", "", "only of this `tag`")
	cmd.Flags().StringVar(&f.lane, "lane", "", "only in this `lane`: webhook, manual, sweep, backfill")
	cmd.Flags().StringVar(&f.errorKind, "error", "", "only with this `kind` of error")
	states := make([]string, 0, len(replicator.JobStates))
	for _, s := range replicator.JobStates {
		states = append(states, string(s))
	}
	_ = cmd.RegisterFlagCompletionFunc("state", fixed(states...)) // the flags exist
	_ = cmd.RegisterFlagCompletionFunc("lane", fixed("webhook", "manual", "sweep", "backfill"))
}

// filter reads the flags the way the API reads its query.
func (f *jobFlags) filter(ids []string) (journal.JobFilter, error) {
	q := url.Values{"id": ids, "state": f.states}
	for key, value := range map[string]string{
		"route": f.route, "destination": f.destination, "repository": f.repository, "tag": f.tag, "lane": f.lane, "error": f.errorKind,
	} {
		q.Set(key, value)
	}
	return api.JobFilter(q)
}

func (f *jobFlags) empty() bool {
	return len(f.states) == 0 && f.route+f.destination+f.repository+f.tag+f.lane+f.errorKind == ""
}

func newJobsList(o *options) *cobra.Command {
	var f jobFlags
	limit := 100
	after := ""
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, newest first", Args: noArgs,
		Long: "List jobs, newest first, a page at a time: `next` in JSON is what --after takes for the page after.",
		Example: `  twinport jobs list --state failed,refused
  twinport jobs list --route prod --error denied --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			filter, err := f.filter(nil)
			if err != nil {
				return classified(err)
			}
			if limit < 1 || limit > 1000 {
				return usage(fmt.Errorf("--limit %d: from 1 to 1000", limit))
			}
			filter.Limit, filter.After = limit, after
			d, err := openReading(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				jobs, err := op.Jobs(cmd.Context(), filter)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if o.output == "json" {
					return printJSON(w, jobs)
				}
				g := newGrid(w, "ID", "STATE", "LANE", "ROUTE", "DESTINATION", "REPOSITORY", "TAG", "DIGEST", "ATTEMPTS", "PUSHED", "ERROR")
				for _, j := range jobs.Jobs {
					g.row(j.ID, string(j.State), j.Lane, j.Route, j.Destination, j.Repository, j.Tag, short(j.Digest), fmt.Sprint(j.Attempts), ago(j.PushedAt), errorText(j.Error))
				}
				if err := g.flush(); err != nil {
					return err
				}
				if jobs.Next != nil {
					fmt.Fprintf(w, "more: --after %s\n", *jobs.Next)
				}
				return nil
			})
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&limit, "limit", limit, "at most this `number`, up to 1000")
	cmd.Flags().StringVar(&after, "after", "", "the page after this `next`")
	return cmd
}

func errorText(e *replicator.JobError) string {
	if e == nil {
		return ""
	}
	return e.Kind + ": " + e.Message
}

func newJobsShow(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one job whole", Args: exactly(1, "one job's ID"),
		Example: `  twinport jobs show 361r50xr81400`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			d, err := openReading(cmd.Context(), cfg)
			return with(d, err, func(op api.Operator) error {
				j, err := op.Job(cmd.Context(), args[0])
				if errors.Is(err, journal.ErrUnknown) {
					return fmt.Errorf("no job %s: it may have been replaced by a later push; `twinport jobs list` shows them", plain(args[0]))
				}
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if o.output == "json" {
					return printJSON(w, j)
				}
				g := newGrid(w, "ID", j.ID)
				g.row("STATE", string(j.State))
				g.row("LANE", j.Lane)
				g.row("ROUTE", j.Route)
				g.row("SOURCE", j.Source+"/"+j.SourceRepository)
				g.row("DESTINATION", j.Destination+"/"+j.Repository)
				g.row("TAG", j.Tag)
				g.row("DIGEST", deref(j.Digest))
				g.row("PUSHED", ago(j.PushedAt))
				g.row("ATTEMPTS", fmt.Sprint(j.Attempts))
				if j.NextAttempt != nil {
					g.row("NEXT ATTEMPT", j.NextAttempt.Format("2006-01-02T15:04:05Z07:00"))
				}
				if j.Error != nil {
					g.row("ERROR", errorText(j.Error))
					g.row("WHAT TO DO", j.Error.Hint)
				}
				return g.flush()
			})
		},
	}
}

// newJobsChange is retry or cancel.
func newJobsChange(o *options, verb string) *cobra.Command {
	var f jobFlags
	var all bool
	cmd := &cobra.Command{
		Use:   verb + " [ID...]",
		Short: map[string]string{"retry": "Try jobs again now", "cancel": "Hold what jobs want until something else is pushed"}[verb],
		Long: map[string]string{
			"retry":  "Try jobs again now: failed, refused and held ones too. A remembered refusal is forgotten.",
			"cancel": "Hold jobs: this tag is not brought to this digest until retried, or until another digest is pushed. Held jobs do not count for lag.",
		}[verb],
		Example: fmt.Sprintf("  twinport jobs %s 361r50xr81400\n  twinport jobs %s --all --state failed --route prod", verb, verb),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			if (len(args) == 0) == (!all) {
				return usage(fmt.Errorf("`twinport jobs %s` takes IDs, or --all with filters", verb))
			}
			if len(args) > 0 && !f.empty() {
				return usage(errors.New("filters go with --all, not with IDs"))
			}
			filter, err := f.filter(args)
			if err != nil {
				return classified(err)
			}
			d, err := openWriting(cmd.Context(), cfg, steering)
			return with(d, err, func(op api.Operator) error {
				change := map[string]func(context.Context, journal.JobFilter, string) (api.Changed, error){"retry": op.Retry, "cancel": op.Cancel}[verb]
				changed, err := change(cmd.Context(), filter, actorName())
				if err != nil {
					return err
				}
				return printChanged(cmd, o, changed, len(args))
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all that the filters select")
	return cmd
}

// printChanged tells how many; fewer than the IDs given is a failure.
func printChanged(cmd *cobra.Command, o *options, changed api.Changed, asked int) error {
	var err error
	if o.output == "json" {
		err = printJSON(cmd.OutOrStdout(), changed)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d changed\n", changed.Changed)
	}
	if err == nil && changed.Changed < asked {
		return exitError{exitFailed, fmt.Errorf("%d of the %d named were not found in a state that this changes", asked-changed.Changed, asked)}
	}
	return err
}
