package limit

import (
	"fmt"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// breakAfter is how many unreachable answers in a row open the breaker.
const breakAfter = 5

// A breaker keeps requests from a registry that does not answer.
type breaker struct {
	registry string

	mu     sync.Mutex
	failed int
	first  time.Time // of the failures in a row
	since  time.Time // zero: closed
}

// check is nil while the breaker is closed.
func (b *breaker) check() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		return nil
	}
	return fmt.Errorf("%s has not answered since %s: %w", b.registry, b.since.UTC().Format(time.RFC3339), oci.ErrUnreachable)
}

// state tells since when the registry is down.
func (b *breaker) state() (since time.Time, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since, !b.since.IsZero()
}

// unreachable counts a failure and tells whether this one opened the breaker.
func (b *breaker) unreachable(now time.Time) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == 0 {
		b.first = now
	}
	b.failed++
	if b.failed < breakAfter || !b.since.IsZero() {
		return false
	}
	b.since = b.first
	return true
}

// reached takes an answer in and tells whether it closed the breaker: only a
// ping's does.
func (b *breaker) reached(ping bool) (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.since.IsZero() {
		if !ping {
			return false
		}
		closed = true
	}
	b.failed, b.since = 0, time.Time{}
	return closed
}
