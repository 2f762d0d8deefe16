package verify

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// seenHolds is how old an answer may be that two proofs share: images of one
	// repository that are proven together ask for a common layer once.
	seenHolds = 10 * time.Second
	// maxSeen bounds what is remembered, twice: beyond it the older half goes,
	// which costs some requests.
	maxSeen = 25_000
)

// Seen are the blobs that proofs have just found whole at destinations. Only
// good answers are shared, each with its repository: that another repository of
// the registry has a blob proves nothing. The zero value is ready; its methods
// are safe for concurrent use.
type Seen struct {
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	mu sync.Mutex
	// sights are those since turned, before those of as long before that: what
	// is too old for anybody is not kept.
	sights, before map[sight]*look
	turned         time.Time
}

// A sight is a blob of a repository, of the size its descriptor tells.
type sight struct {
	identity, repository string
	digest               digest.Digest
	size                 int64
}

// A look is one asking for a blob.
type look struct {
	began time.Time
	done  chan struct{}
	sound bool // set before done is closed
}

// Forget has nothing of a repository believed any more.
func (s *Seen) Forget(identity, repository string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sights := range []map[sight]*look{s.sights, s.before} {
		maps.DeleteFunc(sights, func(k sight, _ *look) bool { return k.identity == identity && k.repository == repository })
	}
}

// once asks for a blob unless another has a moment ago or is doing so.
func (s *Seen) once(ctx context.Context, key sight, ask func() error) error {
	for {
		mine, other := s.begin(key)
		if mine != nil {
			err := ask()
			s.end(key, mine, err == nil)
			return err
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if other.sound {
			return nil
		}
	}
}

// begin gives a look that is the caller's to make, or another's.
func (s *Seen) begin(key sight) (mine, other *look) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sights := range []map[sight]*look{s.sights, s.before} {
		if l := sights[key]; l != nil && now.Sub(l.began) < seenHolds {
			return nil, l
		}
	}
	if s.sights == nil || len(s.sights) >= maxSeen || now.Sub(s.turned) >= seenHolds {
		s.before, s.sights, s.turned = s.sights, make(map[sight]*look), now
	}
	l := &look{began: now, done: make(chan struct{})}
	s.sights[key] = l
	return l, nil
}

func (s *Seen) end(key sight, l *look, sound bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sights := range []map[sight]*look{s.sights, s.before} {
		if !sound && sights[key] == l {
			delete(sights, key)
		}
	}
	l.sound = sound
	close(l.done)
}

func (s *Seen) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}
