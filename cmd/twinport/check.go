package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/replicator/check"
)

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check [REGISTRY...]",
		Short: "Look whether each registry can be reached and lets us do what the routes need",
		Long: `Look at each registry, or those named: whether its name resolves, its TLS
certificate holds, its clock and ours agree, whom we log in as, and whether that
account may list, pull, push, create, mount and delete what the routes need of
it; whether its webhooks can prove themselves, and events can be fetched. Each
failure comes with what to do: the IAM action, role, permission or token scope
that is missing.

Nothing is left behind. A push is tried in a repository of the routes', with a
tiny image tagged twinport-check-…, and deleted again; where it could not be
deleted, an upload is begun and cancelled instead, and what was not tried is
said. What no route needs of a registry is not asked for. Registries are looked
at side by side, and one that does not answer is told within seconds.

Exit code 1 when a check has failed; warnings and what was skipped do not count.`,
		Example: `  twinport check
  twinport check us --output json`,
		ValidArgsFunction: completeRegistries(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			subjects, err := subjects(cfg, args)
			if err != nil {
				return usage(err)
			}
			reports := check.Run(cmd.Context(), subjects)
			if err := printReports(cmd.OutOrStdout(), o, reports); err != nil {
				return err
			}
			switch {
			case cmd.Context().Err() != nil:
				return context.Cause(cmd.Context())
			case slices.ContainsFunc(reports, check.Report.Failed):
				return exitError{code: exitFailed}
			}
			return nil
		},
	}
}

func completeRegistries(o *options) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, _, err := config.Check(o.config)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]string, len(cfg.Registries))
		for i := range cfg.Registries {
			names[i] = cfg.Registries[i].Name
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// marks are how the table shows a state: what needs somebody stands out.
var marks = map[check.State]string{check.OK: "ok", check.Warning: "WARNING", check.Failed: "FAILED", check.Skipped: "-"}

func printReports(w io.Writer, o *options, reports []check.Report) error {
	if o.output == "json" {
		return printJSON(w, map[string]any{"registries": reports})
	}
	var b strings.Builder
	for _, r := range reports {
		fmt.Fprintf(&b, "%s  %s  %s\n", plain(r.Registry), plain(r.Kind), plain(r.Address))
		for _, c := range grouped(r.Checks) {
			fmt.Fprintf(&b, "  %-8s %-10s %s\n", marks[c.State], c.Check, plain(cellBreaks.Replace(c.Detail)))
			if c.Hint != "" {
				fmt.Fprintf(&b, "  %-8s %-10s -> %s\n", "", "", plain(cellBreaks.Replace(c.Hint)))
			}
		}
		b.WriteString("\n")
	}
	for _, r := range reports {
		fmt.Fprintln(&b, verdict(r))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// grouped puts checks in a row that were skipped for the same reason into one.
func grouped(checks []check.Check) (list []check.Check) {
	for _, c := range checks {
		if n := len(list) - 1; n >= 0 && c.State == check.Skipped && list[n].State == check.Skipped && c.Detail == list[n].Detail && c.Hint == list[n].Hint {
			list[n].Check = strings.TrimSuffix(list[n].Check, ":") + ", " + c.Check + ":"
			continue
		}
		list = append(list, c)
	}
	return list
}

// verdict is one line for one registry: what is to be done about it.
func verdict(r check.Report) string {
	of := make(map[check.State][]string)
	for _, c := range r.Checks {
		of[c.State] = append(of[c.State], c.Check)
	}
	var said, untried []string
	for _, c := range r.Checks {
		if c.State == check.Skipped && strings.HasPrefix(c.Detail, "not tried") {
			untried = append(untried, c.Check)
		}
	}
	if names := of[check.Failed]; len(names) > 0 {
		said = append(said, "FAILED: "+strings.Join(names, ", "))
	}
	if names := of[check.Warning]; len(names) > 0 {
		said = append(said, "warnings: "+strings.Join(names, ", "))
	}
	if len(said) == 0 {
		said = append(said, "ok")
	}
	if len(of[check.Failed]) == 0 && len(untried) > 0 {
		said = append(said, "not tried: "+strings.Join(untried, ", "))
	}
	return plain(r.Registry) + ": " + strings.Join(said, "; ")
}
