package sweep

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/twinport/twinport/replicator"
)

const (
	// maxPolled bounds the repositories whose last look is remembered, and
	// maxPassed the tags that were there before the first one. What is over
	// them is left to the sweep.
	maxPolled = 100_000
	maxPassed = 500_000
	// maxUnseen bounds the repositories that the first poll could not list.
	maxUnseen = 1000
)

// A PollMemory is what the polls of one source remember of each other: how far
// its listings have been read, and which tags, though nobody knows them, are
// not new. What they were found to name is in the journal; this may be lost.
type PollMemory struct {
	seed   maphash.Seed
	marks  map[string]polled
	passed map[uint64]struct{}
	cursor headKey
	// begun: the source was seen from end to end, but for unseen: a repository
	// that turns up later is new.
	begun  bool
	unseen map[string]struct{}
}

type polled struct {
	looked bool
	mark   string
}

// NewPollMemory remembers nothing yet.
func NewPollMemory() *PollMemory {
	return &PollMemory{seed: maphash.MakeSeed(), marks: make(map[string]polled), passed: make(map[uint64]struct{}), unseen: make(map[string]struct{})}
}

func (m *PollMemory) repository(name string) polled {
	p, known := m.marks[name]
	if _, unseen := m.unseen[name]; !known && m.begun && !unseen {
		p.looked = true
	}
	return p
}

// failed notes a repository that could not be listed.
func (m *PollMemory) failed(name string) {
	if !m.marks[name].looked && len(m.unseen) <= maxUnseen {
		m.unseen[name] = struct{}{}
	}
}

// ended notes that a poll came to the end of the source.
func (m *PollMemory) ended() {
	m.begun = m.begun || len(m.unseen) <= maxUnseen && len(m.marks) < maxPolled
}

func (m *PollMemory) looked(name, mark string) {
	delete(m.unseen, name)
	if _, known := m.marks[name]; known || len(m.marks) < maxPolled {
		m.marks[name] = polled{looked: true, mark: mark}
	}
}

func (m *PollMemory) key(repository, tag string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	_, _ = h.WriteString(repository) // a hash never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(tag)
	return h.Sum64()
}

// hasPassed tells whether a tag was let pass; when they are too many to be
// remembered, any may have been.
func (m *PollMemory) hasPassed(repository, tag string) bool {
	if len(m.passed) >= maxPassed {
		return true
	}
	_, ok := m.passed[m.key(repository, tag)]
	return ok
}

func (m *PollMemory) pass(repository, tag string) {
	if len(m.passed) < maxPassed {
		m.passed[m.key(repository, tag)] = struct{}{}
	}
}

// statePage is how many states are read at once.
const statePage = 1000

// stateReader walks what is known of a repository's tags beside its listing.
type stateReader struct {
	states               TagStates
	identity, repository string
	// all: the listing is whole, so they are read page by page; otherwise each
	// tag is looked up.
	all  bool
	from string
	page []replicator.TagState
	last bool
}

// find gives what is known of a tag, nil for nothing; tags are to be asked for
// in byte order. A tag that was deleted is known to name nothing.
func (r *stateReader) find(ctx context.Context, tag string) (*replicator.TagState, error) {
	if !r.all {
		page, err := r.read(ctx, tag, 1)
		if err != nil || len(page) == 0 || page[0].Tag != tag {
			return nil, err
		}
		return &page[0], nil
	}
	for {
		for len(r.page) > 0 && r.page[0].Tag < tag {
			r.page = r.page[1:]
		}
		if len(r.page) > 0 {
			if r.page[0].Tag != tag {
				return nil, nil
			}
			found := r.page[0]
			return &found, nil
		}
		if r.last {
			return nil, nil
		}
		if err := r.next(ctx); err != nil {
			return nil, err
		}
	}
}

// each gives all that is known.
func (r *stateReader) each(ctx context.Context, f func(replicator.TagState)) error {
	for {
		for _, s := range r.page {
			f(s)
		}
		if r.page = nil; r.last {
			return nil
		}
		if err := r.next(ctx); err != nil {
			return err
		}
	}
}

func (r *stateReader) next(ctx context.Context) error {
	page, err := r.read(ctx, r.from, statePage)
	if err != nil {
		return err
	}
	r.page, r.last = page, len(page) < statePage
	if len(page) > 0 {
		next := page[len(page)-1].Tag + "\x01" // less than any character of a tag
		if next <= r.from {
			return fmt.Errorf("states of %s %s do not go on after %q", r.identity, r.repository, r.from)
		}
		r.from = next
	}
	return nil
}

func (r *stateReader) read(ctx context.Context, from string, limit int) ([]replicator.TagState, error) {
	page, err := r.states.TagStates(ctx, r.identity, r.repository, from, limit)
	if err != nil {
		return nil, fmt.Errorf("states of %s %s: %w", r.identity, r.repository, err)
	}
	return page, nil
}
