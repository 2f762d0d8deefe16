package journal

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// An id is microseconds since 1970 in 52 bits and a replica in 11: it sorts by
// when it was made, in the database as a number and outside as text.
const (
	replicaBits = 11
	idAlphabet  = "0123456789abcdefghjkmnpqrstvwxyz"
	idLength    = 13
)

// ids makes ids that grow, whatever the clock does.
type ids struct {
	mu      sync.Mutex
	replica int64
	last    int64 // microseconds
}

// seen keeps later ids above one that exists.
func (s *ids) seen(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, id>>replicaBits)
}

func (s *ids) setReplica(number int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replica = number
}

func (s *ids) next(now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, now)
	return s.last<<replicaBits | s.replica
}

// idBefore is the smallest id made at a time.
func idBefore(at time.Time) int64 { return micros(at) << replicaBits }

func formatID(id int64) string {
	var text [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		text[i] = idAlphabet[id&31]
		id >>= 5
	}
	return string(text[:])
}

var errBadID = errors.New("no id of ours")

func parseID(text string) (int64, error) {
	if len(text) != idLength || text[0] > '7' {
		return 0, fmt.Errorf("%.32q: %w", text, errBadID)
	}
	var id int64
	for i := range len(text) {
		v := digitOf(text[i])
		if v < 0 {
			return 0, fmt.Errorf("%.32q: %w", text, errBadID)
		}
		id = id<<5 | v
	}
	return id, nil
}

func digitOf(c byte) int64 {
	for i := range len(idAlphabet) {
		if idAlphabet[i] == c {
			return int64(i)
		}
	}
	return -1
}

// micros is a time as the database keeps it; zero stays zero.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
