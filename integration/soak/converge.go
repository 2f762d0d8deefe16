package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// converge waits until status says that all is proven and within its RPO, and
// until every registry holds what the load left: those tags, those bytes, no other tag.
func (w *world) converge(l *load) time.Duration {
	start := time.Now()
	harness.WaitFor(w, "everything to converge", 5*time.Minute, func(ctx context.Context) error {
		for _, name := range append([]string{source}, destinations...) {
			if err := w.same(ctx, l, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		status, err := w.daemon.Status(ctx)
		if err != nil {
			return err
		}
		for _, name := range destinations {
			line, err := status.Route(route, name)
			if err != nil {
				return err
			}
			if !line.Settled() || line.State != "met" || line.Unconfirmed > 0 {
				return fmt.Errorf("status is %s", line)
			}
		}
		return nil
	})
	return time.Since(start)
}

// same compares one registry's tags with the load's, past any proxy.
func (w *world) same(ctx context.Context, l *load, name string) error {
	client := w.registries[name].Client()
	return harness.Each(ctx, repositories, func(ctx context.Context, r int) error {
		repository := at(r, 0).repository
		var want []string
		for n := range tags {
			p := at(r, n)
			g := l.holds(p)
			if g == nil {
				continue
			}
			want = append(want, p.tag)
			if err := client.Has(ctx, repository, p.tag, g, false); err != nil {
				return err
			}
		}
		got, err := client.Tags(ctx, repository)
		if err != nil {
			return err
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			return fmt.Errorf("%s has tags %v, want %v", repository, got, want)
		}
		return nil
	})
}

// harmless are findings that the faults bring about anywhere. Flipped bits are
// told too, and a person has to look; of content and tags nothing else may be.
// The source is incomplete where a tag is deleted between its listing and its
// reading; where it were so for longer, nothing would converge.
var harmless = []string{"source-incomplete", "delete-held", "slow-sweep", "unlistable", "unusable-event", "referrers"}

// findings tells what the daemon found, and fails where it is about lost or
// foreign content: nobody else has written.
func (w *world) findings() {
	found, err := w.daemon.Findings(w.Context())
	if err != nil {
		w.Fatalf("%v", err)
	}
	for _, f := range found {
		line := fmt.Sprintf("finding %s: %s/%s:%s %s: %s", f.Kind, f.Registry, f.Repository, f.Tag, f.Digest, f.Message)
		if slices.Contains(harmless, f.Kind) || f.Kind == "corrupt" && f.Registry == flipped {
			w.Say("%s", line)
			continue
		}
		w.Errorf("%s", line)
	}
}

// commands asks twinport's own view of it, every byte read back.
func (w *world) commands() {
	for _, args := range [][]string{{"status"}, {"verify", "--deep"}, {"plan", "--exit-code"}} {
		if r := w.daemon.Command(args...); r.Code != 0 {
			w.Errorf("twinport %s ended with %d:\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
	}
}
