package journal

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// hearAgain is the wait before the notifications are listened to again;
	// meanwhile, each wait ends as if there had been one.
	hearAgain = time.Second
	// heardTogether is how long notifications are gathered into one signal.
	heardTogether = 50 * time.Millisecond
	// hearAtMost is how long nothing may be heard before the connection is asked
	// whether it lives.
	hearAtMost = 10 * time.Second
)

// listen gives Changed a signal when another replica has made something due,
// until ctx ends; the function it gives back waits for that.
func (s *shared) listen(ctx context.Context, j *Journal) (wait func()) {
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for ctx.Err() == nil {
			s.hear(ctx, j)
			pause(ctx, hearAgain)
			j.notify()
		}
	})
	return func() {
		cancel()
		listening.Wait()
	}
}

// hear listens until the connection breaks.
func (s *shared) hear(ctx context.Context, j *Journal) {
	conn, err := s.db.connect(ctx)
	if err != nil {
		return // the committer tells who wants to know
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(cctx) // nothing of ours depends on it
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{s.db.name}.Sanitize()); err != nil {
		return
	}
	j.notify() // what was told before is not heard
	for {
		hctx, cancel := context.WithTimeout(ctx, hearAtMost)
		heard, err := conn.WaitForNotification(hctx)
		silent := hctx.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil || conn.IsClosed():
			return
		case err == nil && heard != nil:
			j.notify()
			pause(ctx, heardTogether)
		case silent:
			pctx, cancel := context.WithTimeout(ctx, connectTime)
			err := conn.Ping(pctx)
			cancel()
			if err != nil {
				return
			}
		default:
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
