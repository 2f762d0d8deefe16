package limit

import (
	"net/http"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// recent is how old the last failure may be for a silence to last: whoever
// asks a registry in vain asks again within 5 minutes.
const recent = 10 * time.Minute

// A silence is how long a registry has given nothing of use: no answer at all,
// or 5xx. Unlike the breaker it takes a 500 for what it is, and no ping ends it,
// since what answers pings may have lost its storage.
type silence struct {
	mu     sync.Mutex
	failed int
	since  time.Time // the first failure in a row
	last   time.Time
}

// note takes an answer in; status 0 is none.
func (s *silence) note(op oci.Operation, status int, o outcome, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case o == overloaded || status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		if s.failed == 0 || now.Sub(s.last) > recent {
			s.failed, s.since = 0, now
		}
		s.failed++
		s.last = now
	case status == 0, status == http.StatusUnauthorized, op == oci.OpPing, op == oci.OpToken:
		// It says nothing about the registry's content.
	default:
		s.failed = 0
	}
}

// lasted is how long it has been silent, 0 where it is not.
func (s *silence) lasted(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed < breakAfter || now.Sub(s.last) > recent {
		return 0
	}
	return now.Sub(s.since)
}

// Silent is how long the registry has given no answer, or nothing but 5xx, to
// whatever was asked of its content; 0 where the last answer was a better one,
// or too few were asked for to tell.
func (r *Registry) Silent() time.Duration { return r.silence.lasted(time.Now()) }
