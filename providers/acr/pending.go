package acr

import (
	"errors"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// settles is how long a replica may lack what another has taken: a pull
	// right after a push may find no manifest until replication is through
	// (Microsoft Learn, "Geo-replication in Azure Container Registry"). How long
	// that takes depends on the image's size, so this is ours.
	settles = 10 * time.Minute
	// maxPending bounds what is remembered; beyond it some are forgotten.
	maxPending = 20_000
)

// Settles is how long after a push a read may still find nothing.
func (r *Registry) Settles() time.Duration { return settles }

// pending remembers what we have pushed lately: that it is not found is then no
// proof that it is missing. DNS may send any two requests to two replicas, even
// where connections are pinned: when the pinned one fails.
type pending struct {
	mu    sync.Mutex
	since map[place]time.Time
}

type place struct{ repository, reference string }

func newPending() *pending { return &pending{since: make(map[place]time.Time)} }

func (p *pending) note(repository, reference string) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.since) >= maxPending {
		for at, since := range p.since {
			if now.Sub(since) >= settles {
				delete(p.since, at)
			}
		}
		for at := range p.since { // still full: any half, which costs certainty alone
			if len(p.since) <= maxPending/2 {
				break
			}
			delete(p.since, at)
		}
	}
	p.since[place{repository, reference}] = now
}

func (p *pending) forget(repository, reference string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, place{repository, reference})
}

func (p *pending) recent(repository, reference string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{repository, reference}
	since, ok := p.since[at]
	if ok && time.Since(since) >= settles {
		delete(p.since, at)
		return false
	}
	return ok
}

// early turns "not found" into a passing fault where we have pushed it lately.
func (p *Repository) early(reference string, err error) error {
	var answered *oci.RegistryError
	if err == nil || !errors.Is(err, oci.ErrNotFound) || !errors.As(err, &answered) || !p.registry.pending.recent(p.FullName(), reference) {
		return err
	}
	e := *answered
	e.Kind = oci.ErrInterrupted
	e.Hint = "it was pushed a moment ago; a replica of the registry may not have it yet"
	return &e
}
