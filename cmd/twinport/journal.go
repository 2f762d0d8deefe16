package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/replicator/journal"
)

func newJournal(o *options) *cobra.Command {
	return group("journal", "Check and rebuild the journal's file",
		`The journal is journal.db in the data directory. The registries are the truth: a
lost journal costs one sweep, never an image. What it alone knows is what tags
named before, findings, holds, audits, and pushes of manifests without a tag.

A damaged journal is refused at start. Check tells what is wrong with it;
rebuild sets it aside and makes a new one of what can be read.`,
		newJournalCheck(o), newJournalRebuild(o))
}

// embedded gives the config of a journal that is a file.
func embedded(o *options) (*config.Config, error) {
	cfg, err := loadConfig(o)
	if err != nil {
		return nil, err
	}
	if !cfg.Database.IsZero() {
		return nil, usage(errors.New("`database` is set, so the journal is in PostgreSQL, and checking and restoring it is PostgreSQL's own job: " +
			"pg_amcheck looks for damage, pg_dump and pg_restore keep copies; an empty database works, too, and costs one sweep"))
	}
	return cfg, nil
}

func noJournal(cfg *config.Config, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no journal in %s: nothing is damaged, and `twinport serve` makes a new one", cfg.Data)
	}
	return err
}

func newJournalCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Look for damage in the journal's file", Args: noArgs,
		Long: `Read the journal whole and tell what is wrong with it: the file's structure, its
schema, and rows that make no sense. It changes nothing, and works beside a
daemon. Exits 0 where the journal is sound, else 1.`,
		Example: "  twinport journal check",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := embedded(o)
			if err != nil {
				return err
			}
			found, err := journal.Inspect(cmd.Context(), cfg.Data)
			if err != nil {
				return noJournal(cfg, err)
			}
			w := cmd.OutOrStdout()
			if o.output == "json" {
				err = printJSON(w, found)
			} else {
				err = printInspection(w, found)
			}
			if err == nil && !found.Sound {
				return exitError{exitFailed, errors.New("the journal is damaged: stop the daemon, then run `twinport journal rebuild`")}
			}
			return err
		},
	}
}

func printInspection(w io.Writer, found journal.Inspection) error {
	g := newGrid(w, "JOURNAL", found.Path)
	g.row("SIZE", fmt.Sprintf("%d bytes", found.Bytes))
	g.row("SCHEMA", fmt.Sprintf("%d, this version knows %d", found.Schema, found.Knows))
	g.row("ROWS", counted(found.Rows))
	g.row("JOBS", counted(found.Jobs))
	state := "sound"
	if !found.Sound {
		state = "damaged"
	}
	g.row("STATE", state)
	for _, problem := range found.Problems {
		g.row("PROBLEM", problem)
	}
	return g.flush()
}

// counted is `3 jobs, 5 records`: what there is none of is left out.
func counted(counts map[string]int64) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[name], name))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func newJournalRebuild(o *options) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "rebuild", Short: "Set a damaged journal aside and keep what can be read", Args: noArgs,
		Long: `Make a new journal of what can be read of a damaged one, and set that aside:
it is renamed, never deleted. Needs the daemon to be stopped.

Kept are jobs, the history of tags, findings, audits, pauses, holds and refusals.
What was proven counts as unproven until a sweep has proven it again, which the
next start begins by itself; sweeps and the grace of deletions begin anew. It
may be interrupted at any moment: the next start has the old journal, or all of
the new one.

A sound journal is left alone, unless --force is given. Exits 0 also where
something was lost, and says what.`,
		Example: "  twinport journal rebuild",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := embedded(o)
			if err != nil {
				return err
			}
			r, err := journal.Rebuild(cmd.Context(), journal.Options{Dir: cfg.Data}, force)
			if errors.Is(err, journal.ErrLocked) {
				return fmt.Errorf("%w: stop the daemon first", err)
			}
			if err != nil {
				return noJournal(cfg, err)
			}
			if o.output == "json" {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printRebuilt(cmd.OutOrStdout(), r)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "rebuild a sound journal, too")
	return cmd
}

func printRebuilt(w io.Writer, r journal.Rebuilt) error {
	if r.Aside == "" {
		_, err := fmt.Fprintln(w, "the journal is sound: nothing was changed")
		return err
	}
	g := newGrid(w, "JOURNAL", r.Path)
	g.row("THE OLD ONE", r.Aside)
	g.row("KEPT", counted(r.Kept))
	g.row("MADE NO SENSE", counted(r.Lost))
	unread := strings.Join(r.Unread, ", ")
	if unread == "" {
		unread = "none"
	}
	g.row("NOT READ WHOLE", unread)
	if err := g.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "what was proven is proven again by the next sweep: `twinport serve` begins it by itself, `twinport sync` at once")
	return err
}
