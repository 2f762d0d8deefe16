package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Watch looks at a tag as fast as it can and keeps each state it sees.
type Watch struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	seen []digest.Digest
	errs []error
}

// WatchTag watches a tag until Stop. check, which may be nil, is asked at once
// about each new state; it should look directly at the registry.
func WatchTag(t T, c *Client, repository, tag string, check func(context.Context, digest.Digest) error) *Watch {
	ctx, cancel := context.WithCancel(t.Context())
	w := &Watch{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			w.look(ctx, c, repository, tag, check)
			select {
			case <-ctx.Done():
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-w.done })
	return w
}

func (w *Watch) look(ctx context.Context, c *Client, repository, tag string, check func(context.Context, digest.Digest) error) {
	d, err := c.Digest(ctx, repository, tag)
	if err != nil {
		if errors.Is(err, ErrAbsent) {
			d = ""
		} else {
			return // the registry is down, or the watch is over
		}
	}
	w.mu.Lock()
	known := (len(w.seen) == 0 && d == "") || (len(w.seen) > 0 && w.seen[len(w.seen)-1] == d)
	if !known {
		w.seen = append(w.seen, d)
	}
	w.mu.Unlock()
	if known || d == "" || check == nil {
		return
	}
	if err := check(ctx, d); err != nil && ctx.Err() == nil {
		w.mu.Lock()
		w.errs = append(w.errs, fmt.Errorf("%s visible as %s: %w", tag, d, err))
		w.mu.Unlock()
	}
}

// Stop ends the watch and returns the states seen, an absent tag as the empty
// digest, and what check found wrong.
func (w *Watch) Stop() ([]digest.Digest, error) {
	w.cancel()
	<-w.done
	return w.seen, errors.Join(w.errs...)
}

// InOrder checks that no state comes after a newer one: pushes are the tag's
// digests in the order they were pushed, each digest once. An unknown or
// absent state is a fault.
func InOrder(states []digest.Digest, pushes []*Graph) error {
	position := make(map[digest.Digest]int, len(pushes))
	for i, g := range pushes {
		position[g.Digest] = i
	}
	last := -1
	for i, d := range states {
		at, ok := position[d]
		if !ok {
			return fmt.Errorf("state %d is %q, which nobody pushed", i, d)
		}
		if at < last {
			return fmt.Errorf("state %d is push %d, seen after push %d", i, at, last)
		}
		last = at
	}
	return nil
}
