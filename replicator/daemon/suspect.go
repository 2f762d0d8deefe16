package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/verify"
)

// suspectsHold is how long the findings are not read again.
const suspectsHold = 5 * time.Second

// corruptHint is what to do about damaged bytes.
const corruptHint = "registries keep damaged bytes even when they are pushed again: delete the blob at the registry's storage, then `twinport sync --full`; proofs there read every byte until this is acknowledged"

// suspects are the repositories with a finding of corrupt content that nobody
// has acknowledged. A registry answers for damaged bytes as if nothing had
// happened, so that only their reading proves anything there.
type suspects struct {
	// seen is what the proofs of the last seconds share.
	seen    verify.Seen
	reading turn // one reader at a time

	mu     sync.Mutex
	readAt time.Time
	at     map[suspect]bool
}

type suspect struct{ registry, repository string }

// forget has the findings read again at the next question.
func (s *suspects) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readAt = time.Time{}
}

// suspected tells whether a place is one. Where the findings cannot be read,
// what was last known of them counts.
func (d *Daemon) suspected(ctx context.Context, p replicator.Place) bool {
	s := &d.suspects
	if err := s.reading.take(ctx); err != nil {
		return s.has(p)
	}
	defer s.reading.give()
	s.mu.Lock()
	stale := s.readAt.IsZero() || d.now().Sub(s.readAt) >= suspectsHold
	if stale {
		s.readAt = d.now() // what is forgotten while we read is read again
	}
	s.mu.Unlock()
	if stale {
		at, err := d.readSuspects(ctx)
		s.mu.Lock()
		if err == nil {
			s.at = at
		} else {
			s.readAt = time.Time{}
		}
		s.mu.Unlock()
	}
	return s.has(p)
}

func (s *suspects) has(p replicator.Place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[suspect{p.Registry, p.Repository}]
}

func (d *Daemon) readSuspects(ctx context.Context) (map[suspect]bool, error) {
	at := make(map[suspect]bool)
	filter := journal.FindingFilter{Kind: replicator.FindingCorrupt, Acknowledged: new(bool), Limit: 1000}
	for {
		page, next, err := d.journal.Findings(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, f := range page {
			at[suspect{f.Registry, f.Repository}] = true
		}
		if next == "" {
			return at, nil
		}
		filter.After = next
	}
}

// doubt has nothing believed of what was just seen or brought at a place: it
// lacks something.
func (d *Daemon) doubt(p replicator.Place) {
	d.suspects.seen.Forget(p.Identity, p.Repository)
	d.copier.Doubt(p.Identity, p.Repository)
}

// proof is how a place is to be read back for its proof to count.
func (r *run) proof(ctx context.Context, p replicator.Place, referrers []digest.Digest) verify.Options {
	o := verify.Options{Referrers: referrers, Deep: r.suspected(ctx, p), Identity: p.Identity}
	// Who believes no record believes no other proof's answer either.
	if !slices.ContainsFunc(r.claim.Jobs, func(j replicator.Job) bool { return j.Full }) {
		o.Seen = &r.suspects.seen
	}
	return o
}
