package journal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twinport/twinport/replicator"
)

// Wake makes all waiting jobs that need a registry due now.
func (j *Journal) Wake(ctx context.Context, identity string) error {
	var edges []int64
	c := j.catalog.Load()
	id, ok := c.identities[identity]
	if !ok {
		return nil
	}
	for _, e := range c.edges {
		if e.src == id || e.dst == id {
			edges = append(edges, e.id)
		}
	}
	slices.Sort(edges)
	for woken := int64(1); woken > 0; {
		err := j.write(ctx, true, func(b *batch) error {
			var err error
			woken, err = b.wake(edges)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wake makes a page of the edges' waiting jobs due, and tells how many.
func (b *batch) wake(edges []int64) (woken int64, err error) {
	if err := b.flush(); err != nil {
		return 0, err
	}
	defer b.forgetRows()
	for _, edge := range edges {
		for _, lane := range replicator.Lanes {
			n, err := b.execCount(sqlWake, edge, int64(lane), b.now)
			if err != nil {
				return 0, fmt.Errorf("wake: %w", err)
			}
			woken += n
			if woken >= pageRows {
				b.due = true
				return woken, nil
			}
		}
	}
	b.due = b.due || woken > 0
	return woken, nil
}

// forgetRows drops the batch's copies after rows were changed behind them.
func (b *batch) forgetRows() {
	clear(b.byID)
	clear(b.byKey)
}

// Retry makes the chosen failed, refused, held and waiting jobs due at once as
// if never tried, forgets refusals of theirs, and says how many there were.
// Limit and After of the filter do not count. ErrUnknown where one of its IDs
// is none, and nothing is changed.
func (j *Journal) Retry(ctx context.Context, f JobFilter, actor string) (int, error) {
	return j.steer(ctx, f, actor, "job.retry", []stateCode{waiting, failed, refused, held}, func(b *batch, r *row) error {
		if r.state == waiting && r.next <= b.now {
			r.attempts, r.first = 0, 0
			b.change(r)
			return nil
		}
		if r.digest != "" {
			if err := b.exec(sqlDropRefusal, r.key.dst, r.key.dstRepository, r.digest); err != nil {
				return fmt.Errorf("forget refusal: %w", err)
			}
		}
		r.state, r.next, r.attempts, r.first, r.err = waiting, b.now, 0, 0, jobError{}
		r.heldBy, r.heldDigest = "", ""
		b.change(r)
		return nil
	})
}

// LookAgain makes jobs that have failed or were refused due once more: nothing
// is forgotten of them, and no push came. Others are left alone.
func (j *Journal) LookAgain(ctx context.Context, ids []string) error {
	for len(ids) > 0 {
		page := ids[:min(len(ids), pageRows)]
		ids = ids[len(page):]
		err := j.write(ctx, false, func(b *batch) error {
			for _, id := range page {
				number, err := parseID(id)
				if err != nil {
					return fmt.Errorf("job: %w: %w", ErrUnknown, err)
				}
				r, err := b.byNumber(number)
				if err != nil {
					return err
				}
				if r == nil || r.state != failed && r.state != refused {
					continue
				}
				r.lookAgain(b.now)
				b.change(r)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Cancel holds the chosen jobs at their digests and says how many there were:
// another digest frees them. One that runs is held when it ends, unless by
// then it is proven. Limit, After and ErrUnknown are as with Retry.
func (j *Journal) Cancel(ctx context.Context, f JobFilter, actor string) (int, error) {
	return j.steer(ctx, f, actor, "job.cancel", []stateCode{waiting, running, failed, refused}, func(b *batch, r *row) error {
		r.heldBy, r.heldDigest = heldByPerson, r.digest
		if r.state != running {
			r.state = held
		}
		b.change(r)
		return nil
	})
}

// steer changes all rows of a filter that are in one of the states, a page
// per commit; the first has the audit entry.
func (j *Journal) steer(ctx context.Context, f JobFilter, actor, action string, states []stateCode, change func(*batch, *row) error) (int, error) {
	if err := j.known(ctx, f.IDs); err != nil {
		return 0, err
	}
	f, ok := narrow(f, states)
	if !ok {
		return 0, nil
	}
	f.After, f.Limit = "", pageRows
	entry := AuditEntry{Actor: actor, Action: action, Target: f.describe()}
	total, audited := 0, false
	for {
		ids, next, err := j.selectIDs(ctx, f, false)
		if err != nil {
			return total, fmt.Errorf("select jobs: %w", err)
		}
		n := 0
		err = j.write(ctx, true, func(b *batch) error {
			n = 0
			for _, id := range ids {
				r, err := b.byNumber(id)
				if err != nil {
					return err
				}
				if r == nil || !contains(states, r.state) {
					continue
				}
				if err := change(b, r); err != nil {
					return err
				}
				n++
			}
			if audited {
				return nil
			}
			return b.audit(entry)
		})
		if err != nil {
			return total, err
		}
		audited = true
		total += n
		if next == "" {
			return total, nil
		}
		f.After = next
	}
}

func contains(states []stateCode, state stateCode) bool {
	for _, s := range states {
		if s == state {
			return true
		}
	}
	return false
}

// known gives ErrUnknown unless every id is a job's.
func (j *Journal) known(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := j.Job(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// narrow limits a filter to states; false where none of its own is among them.
func narrow(f JobFilter, states []stateCode) (JobFilter, bool) {
	var list []replicator.JobState
	for _, s := range states {
		asked := len(f.States) == 0
		for _, own := range f.States {
			asked = asked || own == s.state()
		}
		if asked {
			list = append(list, s.state())
		}
	}
	f.States = list
	return f, len(list) > 0
}

// describe is the filter in words, for the audit.
func (f JobFilter) describe() string {
	parts := append([]string(nil), f.IDs...)
	for _, p := range []struct{ name, value string }{
		{"route", f.Route}, {"destination", f.Destination}, {"repository", f.Repository}, {"tag", f.Tag}, {"error", f.ErrorKind},
	} {
		if p.value != "" {
			parts = append(parts, p.name+"="+strconv.Quote(p.value))
		}
	}
	for _, s := range f.States {
		parts = append(parts, "state="+string(s))
	}
	return strings.Join(parts, " ")
}

// Pause stops claims of jobs that only paused routes want; what comes is
// still accepted.
func (j *Journal) Pause(ctx context.Context, route, actor string) error {
	return j.write(ctx, true, func(b *batch) error {
		if err := b.exec(sqlPause, clip(route, maxName), b.now, clip(actor, maxName)); err != nil {
			return fmt.Errorf("pause: %w", err)
		}
		return b.audit(AuditEntry{Actor: actor, Action: "route.pause", Target: route})
	})
}

// Resume ends a pause.
func (j *Journal) Resume(ctx context.Context, route, actor string) error {
	return j.write(ctx, true, func(b *batch) error {
		if err := b.exec(sqlResume, route); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
		b.due = true
		return b.audit(AuditEntry{Actor: actor, Action: "route.resume", Target: route})
	})
}

// Paused are the paused routes.
func (j *Journal) Paused(ctx context.Context) (map[string]bool, error) {
	paused := map[string]bool{}
	err := each(ctx, j.reads, sqlPauses, nil, pausedInto(paused))
	if err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	return paused, nil
}

func (b *batch) paused() (map[string]bool, error) {
	paused := map[string]bool{}
	if err := b.each(sqlPauses, nil, pausedInto(paused)); err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	return paused, nil
}

func pausedInto(paused map[string]bool) func(scanner) error {
	return func(scan scanner) error {
		var route string
		err := scan(&route)
		paused[route] = true
		return err
	}
}
