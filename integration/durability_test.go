package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// A storm is a round of pushes with a webhook each.
type storm struct {
	tags   []string
	pushes []*harness.Graph // push i goes to tag i modulo the number of tags
	// accepted is the last push of each tag whose webhook was answered 2xx; -1: none.
	accepted []int
}

const stormRepository = "team/storm"

// blow sends the round's pushes and webhooks from four senders and calls kill
// once, when some random number of them has been sent. A webhook that is not
// answered is not sent again.
func (w *world) blow(rng *rand.Rand, s *storm, kill func()) {
	w.t.Helper()
	const senders = 4
	at := int64(1 + rng.IntN(len(s.pushes)))
	var sent atomic.Int64
	moment := make(chan struct{})
	var wait sync.WaitGroup
	for sender := range senders {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i, g := range s.pushes {
				tag := i % len(s.tags)
				if tag%senders != sender { // a tag has one sender, so its pushes have an order
					continue
				}
				if err := w.eu.PutManifest(w.t.Context(), stormRepository, s.tags[tag], g); err != nil {
					w.t.Errorf("push: %v", err)
				}
				body := harness.PushEvent(w.reg["eu"].Addr, stormRepository, s.tags[tag], g, time.Now())
				if code, _ := w.Post(w.t.Context(), "eu", body); code/100 == 2 {
					s.accepted[tag] = i
				}
				if sent.Add(1) == at {
					close(moment)
				}
			}
		}()
	}
	<-moment
	kill()
	wait.Wait()
}

// proven checks that each tag's last accepted push, or a later one, is at the destination.
func (w *world) proven(ctx context.Context, s *storm) error {
	position := make(map[digest.Digest]int)
	for i, g := range s.pushes {
		position[g.Digest] = i
	}
	for n, tag := range s.tags {
		if s.accepted[n] < 0 {
			continue
		}
		d, err := w.us.Digest(ctx, stormRepository, tag)
		if err != nil {
			return fmt.Errorf("%s: push %d was accepted: %w", tag, s.accepted[n], err)
		}
		at, ok := position[d]
		if !ok || at < s.accepted[n] {
			return fmt.Errorf("%s is push %d (%s), but push %d was accepted", tag, at, d, s.accepted[n])
		}
		if err := w.us.Has(ctx, stormRepository, tag, s.pushes[at], false); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) newStorm(round, tags, pushes int) *storm {
	w.t.Helper()
	s := &storm{pushes: w.content.Variants(pushes), accepted: make([]int, tags)}
	for i := range tags {
		s.tags = append(s.tags, fmt.Sprintf("r%d-t%d", round%3, i)) // tags return in later rounds
		s.accepted[i] = -1
	}
	w.push(stormRepository, s.pushes[0]) // the blobs all of them share
	return s
}

// P1: kill -9 at random moments during 300 webhooks, 30 times over, without a
// sweep: every accepted push is proven after the restart, or superseded by a
// later one that is.
func TestAcceptedPushesSurviveKillWithoutSweep(t *testing.T) {
	t.Parallel()
	w := start(t, setup{silent: true, exact: true, direct: true})
	rng := rand.New(rand.NewPCG(seedOf(t.Name()), 2))
	for round := range scaled(30, 5) {
		s := w.newStorm(round, 40, 300)
		w.blow(rng, s, func() {
			w.Kill()
			w.Start()
		})
		w.WaitSettled(soon)
		if err := w.proven(t.Context(), s); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	w.noFindings()
}

// P2: the same with the journal deleted: a sweep brings everything back.
func TestALostJournalCostsOneSweep(t *testing.T) {
	t.Parallel()
	w := start(t, setup{silent: true, exact: true, direct: true, route: []string{"sweep: 10m"}})
	rng := rand.New(rand.NewPCG(seedOf(t.Name()), 2))
	for round := range scaled(6, 2) {
		s := w.newStorm(round, 20, 100)
		w.blow(rng, s, w.Kill)
		w.DeleteJournal()
		w.Start() // the sweep at the start is the only one in ten minutes
		for i := range s.accepted {
			s.accepted[i] = len(s.pushes) - len(s.tags) + i // everything pushed, accepted or not
		}
		harness.WaitFor(t, "the sweep's copies", soon, func(ctx context.Context) error { return w.proven(ctx, s) })
		w.WaitSettled(soon)
	}
	w.noFindings()
}
