package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

const (
	workers      = 3
	repositories = 6 // a repository has one worker, so what is done to a tag has an order
	tags         = 8 // the first of each repository is never deleted: a repository is never empty
)

// A place is a tag of the source.
type place struct{ repository, tag string }

func at(repository, tag int) place {
	return place{fmt.Sprintf("team/app%d", repository), fmt.Sprintf("v%d", tag)}
}

// A load pushes, retags and deletes at a constant rate, and knows what the
// source has to hold in the end.
type load struct {
	addr  string
	every time.Duration // between two actions of a worker
	seed  uint64

	cancel context.CancelFunc
	done   sync.WaitGroup

	pushes, retags, deletes, again atomic.Int64

	mu   sync.Mutex
	want map[place]*harness.Graph // nil: deleted
	err  error
}

func newLoad(addr string, rate float64, seed uint64) *load {
	return &load{
		addr: addr, seed: seed, want: make(map[place]*harness.Graph),
		every: time.Duration(workers / rate * float64(time.Second)),
	}
}

// plant makes every tag there is, so that all that follows is at one size.
func (l *load) plant(s *harness.Stage) {
	content, client := harness.NewGenerator(l.seed), harness.NewClient(l.addr)
	for r := range repositories {
		for n := range tags {
			p, g := at(r, n), content.Image(harness.ImageSpec{})
			if err := client.Push(s.Context(), p.repository, g, p.tag); err != nil {
				s.Fatalf("push: %v", err)
			}
			l.want[p] = g
		}
	}
}

func (l *load) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	for n := range workers {
		l.done.Go(func() {
			w := &worker{
				load: l, number: n, client: harness.NewClient(l.addr), content: harness.NewGenerator(l.seed + uint64(n) + 1),
				dice: rand.New(rand.NewPCG(l.seed, uint64(n))), //nolint:gosec // a history, not a secret
			}
			if err := w.run(ctx); err != nil {
				l.mu.Lock()
				l.err = errors.Join(l.err, err)
				l.mu.Unlock()
			}
		})
	}
}

// stop lets every worker end what it has begun: afterwards want is what is there.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

func (l *load) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// actions is how much has been done.
func (l *load) actions() int64 { return l.pushes.Load() + l.retags.Load() + l.deletes.Load() }

func (l *load) String() string {
	return fmt.Sprintf("%d pushes, %d retags, %d deletes; %d requests tried again while the source was away",
		l.pushes.Load(), l.retags.Load(), l.deletes.Load(), l.again.Load())
}

func (l *load) holds(p place) *harness.Graph {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.want[p]
}

func (l *load) set(p place, g *harness.Graph) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want[p] = g
}

type worker struct {
	*load
	number  int
	client  *harness.Client
	content *harness.Generator
	dice    *rand.Rand
}

func (w *worker) run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// What has begun is ended, whatever becomes of ctx: half an action has
		// no expectation.
		if err := w.act(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

// act does one thing to one tag of the worker's.
func (w *worker) act(ctx context.Context) error {
	r := w.number + workers*w.dice.IntN(repositories/workers)
	n := w.dice.IntN(tags)
	p, other := at(r, n), at(r, w.dice.IntN(tags))
	what := w.dice.IntN(100)
	switch {
	case what < 15 && n > 0 && w.holds(p) != nil:
		w.deletes.Add(1)
		err := w.insist(ctx, func(ctx context.Context) error {
			err := w.client.Delete(ctx, p.repository, p.tag)
			if errors.Is(err, harness.ErrAbsent) { // by the try before, whose answer was lost
				return nil
			}
			return err
		})
		w.set(p, nil)
		return err
	case what < 35 && other != p && w.holds(other) != nil:
		g := w.holds(other)
		w.retags.Add(1)
		w.set(p, g)
		return w.insist(ctx, func(ctx context.Context) error { return w.client.PutManifest(ctx, p.repository, p.tag, g) })
	}
	g := w.image()
	w.pushes.Add(1)
	w.set(p, g)
	return w.insist(ctx, func(ctx context.Context) error { return w.client.Push(ctx, p.repository, g, p.tag) })
}

func (w *worker) image() *harness.Graph {
	spec := harness.ImageSpec{Shared: []int{1, 2}, Layers: 1, LayerSize: 8 << 10}
	switch what := w.dice.IntN(100); {
	case what < 3:
		spec.LayerSize = 1 << 20
	case what < 15:
		return w.content.MultiArch(spec, "amd64", "arm64")
	case what < 25:
		spec.Docker = true
	}
	return w.content.Image(spec)
}

// insist tries until it is done: the source may be away for a while.
func (w *worker) insist(ctx context.Context, f func(ctx context.Context) error) error {
	return harness.Poll(ctx, 3*time.Minute, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		err := f(ctx)
		if err != nil {
			w.again.Add(1)
		}
		return err
	})
}
