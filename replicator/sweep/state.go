package sweep

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// sideBySide is the default of Request.Concurrency.
	sideBySide  = 16
	maxFindings = 1000
	maxVoided   = 1000
	// maxCompanions bounds what is held of one repository's companion tags.
	maxCompanions = 10_000
	maxSources    = 5
	// giveUpAfter unanswered listings in a row, the rest of a registry is left
	// to the next sweep.
	giveUpAfter = 5
	// refusedAfter tags in a row that may not be read, the rest of a repository is
	// left: it is the repository that is denied. Registries that withhold single
	// images (for what a scan has found in them) withhold fewer in a row.
	refusedAfter = 64
)

// errGaveUp ends a sweep that has nobody left to compare with.
var errGaveUp = errors.New("no answers")

// A sweep is one run's state.
type sweep struct {
	Request
	source       silence
	destinations []*destination

	// callbacks holds a token while Emit, Skip, Void, Companions or Checkpoint
	// runs, one at a time; they may take as long as the journal does.
	callbacks chan struct{}

	mu       sync.Mutex // guards all below
	result   Result
	partial  bool // the source was not seen whole
	voided   map[replicator.Place]bool
	findings map[replicator.Finding]bool
	sources  []error
}

// A destination is one to compare with.
type destination struct {
	Destination
	silence
}

// silence counts how often in a row a registry did not answer.
type silence struct{ n atomic.Int64 }

// heard notes an answer, good or bad, and tells of none.
func (s *silence) heard(err error) {
	var throttled *oci.ThrottledError
	if errors.Is(err, oci.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &throttled) {
		s.n.Add(1)
		return
	}
	s.n.Store(0)
}

func (s *silence) gaveUp() bool { return s.n.Load() >= giveUpAfter }

// refusals counts how often in a row a repository's tags were refused.
type refusals struct {
	n    atomic.Int64
	told atomic.Bool // the first refusal
	left atomic.Bool // that the rest is left is told
}

// heard notes an answer, good or bad; news: it is not one more refusal.
func (r *refusals) heard(err error) (news bool) {
	if !errors.Is(err, oci.ErrDenied) {
		r.n.Store(0)
		return true
	}
	r.n.Add(1)
	return !r.told.Swap(true)
}

func (r *refusals) gaveUp() bool { return r.n.Load() >= refusedAfter }

func newSweep(request Request) *sweep {
	s := &sweep{Request: request, voided: make(map[replicator.Place]bool), findings: make(map[replicator.Finding]bool), callbacks: make(chan struct{}, 1)}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Concurrency <= 0 {
		s.Concurrency = sideBySide
	}
	for _, d := range request.Destinations {
		s.destinations = append(s.destinations, &destination{Destination: d})
	}
	s.result.Failed = make(map[string]error)
	return s
}

func (s *sweep) outcome(err error) Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := s.result
	result.Complete = err == nil && !s.partial && s.OnlyRepository == "" && s.OnlyTag == ""
	result.Sources = errors.Join(s.sources...)
	result.Failed = maps.Clone(result.Failed)
	result.Voided, result.Findings = slices.Clone(result.Voided), slices.Clone(result.Findings)
	return result
}

// count adds to the result's numbers.
func (s *sweep) count(f func(*Result)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.result)
}

// sourceFailed notes that some of the source could not be seen; nil: for a
// reason that is told already.
func (s *sweep) sourceFailed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = true
	if err != nil && len(s.sources) < maxSources {
		s.sources = append(s.sources, err)
	}
}

// destinationFailed notes that some of a destination could not be compared.
func (s *sweep) destinationFailed(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.result.Failed[name] == nil {
		s.result.Failed[name] = err
	}
}

// find notes a finding, equal ones once.
func (s *sweep) find(f replicator.Finding) {
	f.Route, f.Registry = s.Route, s.SourceName
	key := f
	key.Message = ""
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findings[key] || len(s.result.Findings) >= maxFindings {
		return
	}
	s.findings[key] = true
	f.At = s.Now().UTC()
	s.result.Findings = append(s.result.Findings, f)
}

// skip tells what is left out.
func (s *sweep) skip(skipped Skipped) {
	s.count(func(r *Result) { r.Skipped++ })
	if s.Skip != nil {
		s.callbacks <- struct{}{}
		defer func() { <-s.callbacks }()
		s.Skip(skipped)
	}
}

func (s *sweep) emit(ctx context.Context, differences []Difference) error {
	s.callbacks <- struct{}{}
	defer func() { <-s.callbacks }()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.Emit(ctx, differences); err != nil {
		return fmt.Errorf("emit %d differences: %w", len(differences), err)
	}
	s.count(func(r *Result) { r.Emitted += int64(len(differences)) })
	return nil
}

// void tells that a destination lacks what a record calls proven.
func (s *sweep) void(ctx context.Context, place replicator.Place) error {
	s.mu.Lock()
	known := s.voided[place] || len(s.voided) >= maxVoided
	if !known {
		s.voided[place] = true
		s.result.Voided = append(s.result.Voided, place)
	}
	s.mu.Unlock()
	if known || s.Void == nil {
		return nil
	}
	s.callbacks <- struct{}{}
	defer func() { <-s.callbacks }()
	if err := s.Void(ctx, place); err != nil {
		return fmt.Errorf("void %s: %w", place, err)
	}
	return nil
}
