package daemon

import "context"

// A turn is a lock to hold over requests and journal reads: who waits for it
// waits no longer than its context lasts. A sync.Mutex guards memory alone.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) give() { <-t }
