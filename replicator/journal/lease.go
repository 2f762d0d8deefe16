package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a replica's lease holds after a heartbeat, and how often it is to
// be renewed. A dead replica's jobs move within 15 s: the others look every
// second, and wait for as long as its last lease held.
const (
	lease       = 12 * time.Second
	renew       = 2 * time.Second
	sharedLease = 9 * time.Second
	sharedRenew = time.Second
	// lookedAway is a pause between two looks at the others after which nothing
	// is known of them: we, or the database, were not there meanwhile.
	lookedAway = 5 * time.Second
)

func (j *Journal) leaseTime() time.Duration {
	if j.shared != nil {
		return sharedLease
	}
	return lease
}

// RenewEvery is how often Heartbeat is to be called.
func (j *Journal) RenewEvery() time.Duration {
	if j.shared != nil {
		return sharedRenew
	}
	return renew
}

// Heartbeat renews this replica's lease, and looks after the others that share
// the journal: it takes over what dead ones left, and the lead where nobody
// has it. ErrFenced where the lease was lost: all claims before are somebody
// else's, and new ones are made under another.
func (j *Journal) Heartbeat(ctx context.Context) error {
	if j.shared == nil {
		return j.write(ctx, true, func(b *batch) error { return b.heartbeat() })
	}
	err := j.write(ctx, true, func(b *batch) error { return b.tend() })
	if !errors.Is(err, ErrFenced) {
		return err
	}
	again := j.write(ctx, true, func(b *batch) error { return b.enter(j.epoch.Load() + 1) })
	return errors.Join(err, again)
}

func (b *batch) heartbeat() error {
	if b.j.shared != nil {
		return b.tend()
	}
	// Counted from before the write, so that ours ends before the row's does.
	until := b.now + lease.Microseconds()
	n, err := b.execCount(sqlHeartbeat, b.j.replica, b.j.epoch.Load(), until)
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

// ClaimUntil is LeaseUntil for a claim: zero where it was made under a lease
// that is lost.
func (j *Journal) ClaimUntil(c Claim) time.Time {
	if c.Epoch != j.epoch.Load() {
		return time.Time{}
	}
	return j.LeaseUntil()
}

// Leads tells whether this process is the one that sweeps: alone, it is.
func (j *Journal) Leads() bool {
	return j.shared == nil || micros(j.now()) < j.shared.leads.Load()
}

// Epoch is what this replica's claims are made under.
func (j *Journal) Epoch() int64 { return j.epoch.Load() }

// Shared tells whether other replicas may write to the journal.
func (j *Journal) Shared() bool { return j.shared != nil }

// Sharers is how many replicas divide the registries' budgets, this one among them.
func (j *Journal) Sharers() int {
	if j.shared == nil {
		return 1
	}
	return max(int(j.shared.sharers.Load()), 1)
}

// Replica is this process's name among those that share the journal.
func (j *Journal) Replica() string { return j.replica }

// tend is a heartbeat among replicas. The others' clocks are not trusted: a
// replica is dead when nothing of its row has changed for a whole lease by our
// own clock, while we were looking.
func (b *batch) tend() error {
	s, now := b.j.shared, b.j.now()
	until := b.now + sharedLease.Microseconds()
	alive := false
	var leader struct {
		replica string
		epoch   int64
	}
	live := map[string]peer{}
	working := int64(0)
	err := s.session.all([]question{
		{pgHeartbeat, []any{b.j.replica, b.j.epoch.Load(), until}, func(scanner) error { alive = true; return nil }},
		{pgReplicas, nil, func(scan scanner) error {
			var id string
			var number, works int64
			p := peer{since: now}
			err := scan(&id, &p.epoch, &p.until, &number, &works)
			live[id] = p
			working += works
			return err
		}},
		{pgLeader, nil, func(scan scanner) error { return scan(&leader.replica, &leader.epoch) }},
	})
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if !alive {
		return ErrFenced
	}
	looking := !s.tended.IsZero() && now.Sub(s.tended) < lookedAway
	buried := map[string]int{}
	for id, p := range live {
		known, ok := s.peers[id]
		if id == b.j.replica || !looking || !ok || known.epoch != p.epoch || known.until != p.until {
			continue
		}
		if p.since = known.since; now.Sub(p.since) < sharedLease {
			live[id] = p
			continue
		}
		if buried[id], err = b.bury(id, p.epoch); err != nil {
			return err
		}
		delete(live, id)
	}
	ours := leader.replica == b.j.replica && leader.epoch == b.j.epoch.Load()
	if p, lives := live[leader.replica]; s.role == Serves && (!lives || p.epoch != leader.epoch) {
		if err := b.exec(pgLead, b.j.replica, b.j.epoch.Load()); err != nil {
			return fmt.Errorf("take the lead: %w", err)
		}
		ours = true
	}
	b.after = append(b.after, func() {
		b.j.lease.Store(until)
		s.peers, s.tended = live, now
		s.sharers.Store(max(working, 1))
		s.leads.Store(0)
		if ours {
			s.leads.Store(until)
		}
		for id, jobs := range buried {
			if s.buried != nil {
				s.buried(id, jobs)
			}
		}
	})
	return nil
}
