package journal

import (
	"context"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

// SweepState is what is known of a route's sweeps of a destination; its zero
// value, named, where there was none.
func (j *Journal) SweepState(ctx context.Context, route, destination string) (replicator.SweepState, error) {
	s := replicator.SweepState{Route: route, Destination: destination}
	var started, completed, completeStart, failedAt, seeded int64
	_, err := one(ctx, j.reads, sqlSweep, []any{route, destination}, &s.Cursor, &started, &completed, &completeStart,
		&failedAt, &s.Error, &s.Requests, &s.Tags, &seeded)
	if err != nil {
		return s, fmt.Errorf("read sweep state: %w", err)
	}
	s.StartedAt, s.CompletedAt, s.CompleteStart = fromMicros(started), fromMicros(completed), fromMicros(completeStart)
	s.FailedAt, s.Seeded = fromMicros(failedAt), seeded != 0
	return s, nil
}

// SaveSweepState writes it whole.
func (j *Journal) SaveSweepState(ctx context.Context, s replicator.SweepState) error {
	return j.write(ctx, true, func(b *batch) error {
		err := b.exec(sqlSaveSweep, s.Route, s.Destination, s.Cursor, micros(s.StartedAt), micros(s.CompletedAt),
			micros(s.CompleteStart), micros(s.FailedAt), clip(s.Error, maxMessage), s.Requests, s.Tags, flag(s.Seeded))
		if err != nil {
			return fmt.Errorf("write sweep state: %w", err)
		}
		return nil
	})
}

// SweepsDue are the registries that told something we could not use.
func (j *Journal) SweepsDue(ctx context.Context) ([]string, error) {
	var list []string
	err := each(ctx, j.reads, sqlSweepsDue, nil, func(scan scanner) error {
		var name string
		err := scan(&name)
		list = append(list, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read due sweeps: %w", err)
	}
	return list, nil
}

// ClearSweepDue is for the start of the sweep that answers it: what is told
// from then on makes it due again.
func (j *Journal) ClearSweepDue(ctx context.Context, registry string) error {
	return j.write(ctx, true, func(b *batch) error {
		if err := b.exec(sqlClearSweepDue, registry); err != nil {
			return fmt.Errorf("clear due sweep: %w", err)
		}
		return nil
	})
}
