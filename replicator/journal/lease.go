package journal

import (
	"context"
	"fmt"
	"time"
)

// lease is how long a replica's lease holds after a heartbeat; a dead
// replica's jobs move within 15 s. Renew it every 3 s.
const lease = 12 * time.Second

// Heartbeat renews this replica's lease. ErrFenced where it is lost.
func (j *Journal) Heartbeat(ctx context.Context) error {
	return j.write(ctx, true, func(b *batch) error { return b.heartbeat() })
}

func (b *batch) heartbeat() error {
	// Counted from before the write, so that ours ends before the row's does.
	until := b.now + lease.Microseconds()
	n, err := b.execCount(sqlHeartbeat, b.j.replica, b.j.epoch, until)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if n == 0 {
		return ErrFenced
	}
	b.after = append(b.after, func() { b.j.lease.Store(until) })
	return nil
}

// LeaseUntil is the time until which our lease surely holds, as far as is known here.
func (j *Journal) LeaseUntil() time.Time { return fromMicros(j.lease.Load()) }
