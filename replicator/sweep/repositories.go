package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// usualTags is how many HEADs a repository is expected to need when it is
// listed; that many connections are asked for ahead.
const usualTags = 12

// run compares the source's repositories, some side by side.
func (s *sweep) run(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(s.Concurrency)
	progress := &progress{done: s.checkpoint(gctx), turn: make(chan struct{}, 1)}
	// Listings come next, then HEADs: neither has to wait for handshakes.
	s.warm(s.SourceName, s.Concurrency)
	for _, d := range s.destinations {
		s.warm(d.Name, s.Concurrency)
	}
	begun := 0
	err := s.repositories(gctx, func(name string) error {
		if s.source.gaveUp() {
			return errGaveUp
		}
		if !s.Unreached && !slices.ContainsFunc(s.destinations, func(d *destination) bool { return !d.gaveUp() }) {
			return errGaveUp
		}
		if err := context.Cause(gctx); err != nil {
			return err
		}
		if begun++; begun*usualTags <= heads {
			s.warm(s.SourceName, s.Concurrency+begun*usualTags)
		}
		at := progress.begin(name)
		group.Go(func() error {
			whole, err := s.repository(gctx, name)
			if err != nil {
				return err
			}
			return progress.end(at, whole)
		})
		return nil
	}, progress.unordered)
	if errors.Is(err, errGaveUp) {
		s.sawPart()
		err = nil
	}
	// A worker's error is the reason for what the loop was told by its context.
	if worker := group.Wait(); worker != nil {
		err = worker
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (s *sweep) warm(registry string, n int) {
	if s.Warm != nil {
		s.Warm(registry, n)
	}
}

func (s *sweep) sawPart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = true
}

func (s *sweep) checkpoint(ctx context.Context) func(string) error {
	return func(cursor string) error {
		if s.Checkpoint == nil {
			return nil
		}
		s.callbacks <- struct{}{}
		defer func() { <-s.callbacks }()
		if err := s.Checkpoint(ctx, cursor); err != nil {
			return fmt.Errorf("checkpoint at %s: %w", cursor, err)
		}
		return nil
	}
}

// repositories gives each selected source repository after the cursor to visit.
func (s *sweep) repositories(ctx context.Context, visit func(string) error, unordered func()) error {
	selected := func(name string) error {
		if ok, reason := s.Rules.Selects(s.Route, name); !ok {
			s.skip(Skipped{Repository: name, Reason: reason})
			return nil
		}
		return visit(name)
	}
	if s.OnlyRepository != "" {
		return selected(s.OnlyRepository)
	}
	if literals, ok := s.Rules.LiteralRepositories(s.Route); ok {
		for _, name := range literals {
			if name > s.Cursor {
				if err := visit(name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	sorted, err := s.catalog(ctx, func(name string) error {
		if s.Cursor != "" && name <= s.Cursor {
			return nil
		}
		return selected(name)
	}, unordered)
	if err != nil || sorted || s.Cursor == "" {
		return err
	}
	// The order says nothing about what was compared before the cursor.
	_, err = s.catalog(ctx, func(name string) error {
		if name > s.Cursor {
			return nil
		}
		return selected(name)
	}, unordered)
	return err
}

// catalog gives the source's repositories as they are listed and tells whether
// they came in byte order. What the source did wrong is noted, not returned.
func (s *sweep) catalog(ctx context.Context, visit func(string) error, unordered func()) (sorted bool, err error) {
	sorted = true
	previous := ""
	for name, err := range checkedNames(s.Source.Repositories(ctx)) {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return sorted, cause
			}
			s.catalogFailed(err)
			return sorted, nil
		}
		if name == previous {
			continue
		}
		if name < previous && sorted {
			sorted = false
			unordered()
		}
		previous = name
		if err := visit(name); err != nil {
			return sorted, err
		}
	}
	return sorted, context.Cause(ctx)
}

// checkedNames ends a listing at what is no repository name: a registry that
// lists such is not listing what we can ask for.
func checkedNames(names iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range names {
			if err == nil {
				err = oci.CheckRepository(name)
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

func (s *sweep) catalogFailed(err error) {
	s.sourceFailed(fmt.Errorf("list repositories of %s: %w", s.SourceName, err))
	for _, kind := range []error{oci.ErrUnlistable, oci.ErrDenied, oci.ErrUnsupported, oci.ErrNotFound} {
		if errors.Is(err, kind) {
			s.find(replicator.Finding{
				Kind:    replicator.FindingUnlistable,
				Message: fmt.Sprintf("%s does not list its repositories, so sweeps of route %s cannot tell what webhooks lost: %v", s.SourceName, s.Route, err),
				Hint:    "name the repositories in the route's include without patterns, or give the account the right to list",
			})
			return
		}
	}
}

// progress turns repositories that end in any order into checkpoints in theirs.
type progress struct {
	done func(cursor string) error

	turn    chan struct{} // holds a token while one of them changes what follows, and writes
	first   int           // the place of pending[0]
	pending []pending
	stopped bool
}

type pending struct {
	name  string
	ended bool
}

func (p *progress) begin(name string) (at int) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.pending = append(p.pending, pending{name: name})
	return p.first + len(p.pending) - 1
}

// unordered: there is no order a cursor could stand for.
func (p *progress) unordered() {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.stopped = true
}

// end notes that a repository is compared, whole or not, and tells how far all
// before it have come.
func (p *progress) end(at int, whole bool) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.pending[at-p.first].ended = true
	p.stopped = p.stopped || !whole // no cursor may pass what did not go well
	n := 0
	for n < len(p.pending) && p.pending[n].ended {
		n++
	}
	if n == 0 {
		return nil
	}
	cursor := p.pending[n-1].name
	p.pending = p.pending[n:]
	p.first += n
	if p.stopped {
		return nil
	}
	return p.done(cursor)
}
