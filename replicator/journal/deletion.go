package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// ErrInUse says that the tag was pushed, is being moved, or is on record
// otherwise than the departure says, so that it may not be removed now.
var ErrInUse = errors.New("the tag is in use")

// BeginDeletion is committed before a tag is removed: the record of it is given
// up, so that nothing believes any more that the tag is there, and no job moves
// the tag until the removal ends. The record is given back for
// AbandonDeletion; it is the zero Record where an earlier beginning has given
// it up. ErrInUse, and nothing is changed, where a job waits for the tag or
// moves it, or its record is not the departure's; ErrFenced where this
// replica's lease is lost.
func (j *Journal) BeginDeletion(ctx context.Context, d replicator.Departure) (replicator.Record, error) {
	var record replicator.Record
	err := j.write(ctx, true, func(b *batch) error {
		record = replicator.Record{}
		r, err := b.removable(&d)
		if err != nil {
			return err
		}
		err = b.each(sqlRecord, []any{r.registry, r.repository, r.tag, b.cat.registries[r.registry].trust}, func(scan scanner) error {
			record, err = scanRecord(b.cat, scan)
			return err
		})
		switch {
		case err != nil:
			return fmt.Errorf("read the record: %w", err)
		case record.Tag == "" && r.begun != 0: // given up by a beginning that was cut off
		case record.Tag == "" || record.Digest != d.Digest || record.Route != d.Route || record.Source != d.Source:
			return ErrInUse
		}
		if err := b.exec(sqlDropRecord, r.registry, r.repository, r.tag); err != nil {
			return fmt.Errorf("give up the record: %w", err)
		}
		r.begun, r.held, r.replica, r.epoch = b.now, "", b.j.replica, b.j.epoch.Load()
		return b.saveDeparture(&r)
	})
	if err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrFenced) {
		err = fmt.Errorf("begin the removal of a tag: %w", err)
	}
	return record, err
}

// removable gives a departure's row, under this replica's lease and where no job
// wants its tag.
func (b *batch) removable(d *replicator.Departure) (departureRow, error) {
	if err := b.flush(); err != nil {
		return departureRow{}, err
	}
	if err := b.fence(Claim{Replica: b.j.replica, Epoch: b.j.epoch.Load()}); err != nil {
		return departureRow{}, err
	}
	k, err := b.departureKey(d)
	if err != nil {
		return departureRow{}, err
	}
	r, known, err := b.departure(k)
	if err != nil {
		return r, err
	}
	if !known || r.digest != string(d.Digest) {
		return r, ErrInUse // it came back meanwhile
	}
	for _, query := range []string{sqlLiveRow, sqlBeingRemoved} {
		err := b.each(query, []any{k.registry, k.repository, k.tag}, func(scanner) error { return ErrInUse })
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// AbandonDeletion ends a removal that has removed nothing: its record is
// believed again, where there is one to give back and nothing was proven
// meanwhile. held says why, empty: it may be tried again.
func (j *Journal) AbandonDeletion(ctx context.Context, d replicator.Departure, record replicator.Record, held string) error {
	return j.endDeletion(ctx, d, func(b *batch, r *departureRow) error {
		r.held, r.replica, r.epoch = clip(held, maxName), "", 0
		if record.Tag == "" {
			return b.saveDeparture(r) // what it is known by is that it was begun
		}
		r.begun = 0
		known := false
		err := b.each(sqlRecord, []any{r.registry, r.repository, r.tag, b.cat.registries[r.registry].trust}, func(scanner) error {
			known = true
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the record: %w", err)
		}
		if !known {
			if err := b.saveRecord(&record); err != nil {
				return err
			}
		}
		return b.saveDeparture(r)
	})
}

// LeaveDeletion ends a removal of which nobody knows whether it happened: the
// next run finds out, and jobs may move the tag again.
func (j *Journal) LeaveDeletion(ctx context.Context, d replicator.Departure) error {
	return j.endDeletion(ctx, d, func(b *batch, r *departureRow) error {
		r.replica, r.epoch = "", 0
		return b.saveDeparture(r)
	})
}

// FinishDeletion ends a removal: the tag is gone from the destination, which
// the tag's history and the audit tell.
func (j *Journal) FinishDeletion(ctx context.Context, d replicator.Departure, at time.Time, cause string, entry AuditEntry) error {
	state := replicator.TagState{Place: d.Destination, Tag: d.Tag, Digest: digest.Digest(""), At: at, Cause: cause}
	return j.endDeletion(ctx, d, func(b *batch, r *departureRow) error {
		if err := b.exec(sqlDropDeparture, r.args()...); err != nil {
			return err
		}
		if err := b.exec(sqlDropRecord, r.registry, r.repository, r.tag); err != nil {
			return fmt.Errorf("give up the record: %w", err)
		}
		if err := b.addTagState(state); err != nil {
			return err
		}
		return b.audit(entry)
	})
}

// HoldDeparture writes down why a tag whose grace has passed is kept.
func (j *Journal) HoldDeparture(ctx context.Context, d replicator.Departure, why string) error {
	return j.endDeletion(ctx, d, func(b *batch, r *departureRow) error {
		r.held = clip(why, maxName)
		return b.saveDeparture(r)
	})
}

// ForgetDeparture drops what is noted of a tag: it is back at its source.
func (j *Journal) ForgetDeparture(ctx context.Context, d replicator.Departure) error {
	return j.endDeletion(ctx, d, func(b *batch, r *departureRow) error {
		return b.exec(sqlDropDeparture, r.args()...)
	})
}

// endDeletion changes a departure's row; jobs that waited for it may be due.
func (j *Journal) endDeletion(ctx context.Context, d replicator.Departure, change func(*batch, *departureRow) error) error {
	err := j.write(ctx, true, func(b *batch) error {
		k, err := b.departureKey(&d)
		if err != nil {
			return err
		}
		r, known, err := b.departure(k)
		if err != nil || !known {
			return err
		}
		b.due = true
		return change(b, &r)
	})
	if err != nil {
		return fmt.Errorf("write down a departure: %w", err)
	}
	return nil
}
