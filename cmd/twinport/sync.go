package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/replicator/api"
)

func newSync(o *options) *cobra.Command {
	var request api.SyncRequest
	retryFor := 2 * time.Minute
	cmd := &cobra.Command{
		Use:   "sync [ROUTE...]",
		Short: "Compare sources with destinations once and copy what differs",
		Long: `Compare sources with destinations once, copy and prove what differs, and end.
No daemon is needed; where one runs on the same data directory, it does the work.

A job that fails is tried again for as long as --retry-for; what is left then
stays queued for the next sync or daemon, and the exit code is 1.`,
		Example: `  twinport sync
  twinport sync prod --only team/app:v1.4.2
  twinport sync --full --output json`,
		ValidArgsFunction: completeRoutes(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			if retryFor <= 0 {
				return usage(fmt.Errorf("--retry-for %s: must be more than nothing", retryFor))
			}
			request.Routes, request.RetryFor = args, retryFor.Seconds()
			d, err := openWriting(cmd.Context(), cfg, working)
			return with(d, err, func(op api.Operator) error {
				show := newProgress(os.Stderr, o.output == "json")
				result, err := op.Sync(cmd.Context(), request, show.tell)
				show.end()
				if err != nil {
					return err
				}
				if err := printSync(cmd.OutOrStdout(), o, result); err != nil {
					return err
				}
				if !result.InSync() {
					return exitError{code: exitFailed}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&request.Only, "only", "", "only this `REPOSITORY[:TAG]` of the source")
	cmd.Flags().BoolVar(&request.Full, "full", false, "believe no record: ask the destinations for everything")
	cmd.Flags().DurationVar(&retryFor, "retry-for", retryFor, "how long to go on while nothing succeeds")
	return cmd
}

func printSync(w io.Writer, o *options, r api.Sync) error {
	if o.output == "json" {
		return printJSON(w, r)
	}
	word := "in sync"
	if !r.InSync() {
		word = "NOT in sync"
	}
	fmt.Fprintf(w, "%s: %d copied, %d moved, %d deleted, %d refused, %d failed; %s in %s; %d requests at sources, %d at destinations\n",
		word, r.Copied, r.Moved, r.Deleted, r.Refused, r.Failed, size(r.Bytes), seconds(r.Seconds), r.Requests.Source, r.Requests.Destination)
	for _, e := range r.Errors {
		fmt.Fprintf(w, "not compared: %s\n", plain(e))
	}
	if r.Refused+r.Failed > 0 {
		fmt.Fprintln(w, "`twinport status --behind` lists what is not proven, and why")
	}
	return printFindings(w, r.Findings)
}
