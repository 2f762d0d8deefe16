package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// states are a journal's, of one source.
type states map[string]map[string]replicator.TagState

func (s states) add(repository, tag string, d digest.Digest, at time.Time) {
	if s[repository] == nil {
		s[repository] = make(map[string]replicator.TagState)
	}
	s[repository][tag] = replicator.TagState{Tag: tag, Digest: d, At: at}
}

func (s states) TagStates(_ context.Context, _, repository, from string, limit int) ([]replicator.TagState, error) {
	var list []replicator.TagState
	for tag, state := range s[repository] {
		if tag >= from {
			list = append(list, state)
		}
	}
	slices.SortFunc(list, func(a, b replicator.TagState) int { return strings.Compare(a.Tag, b.Tag) })
	return list[:min(limit, len(list))], nil
}

// A polling is a source that is polled, and what is known of it.
type polling struct {
	t       *testing.T
	eu      *ocitest.Registry
	states  states
	request PollRequest
	told    []string
}

func newPolling(t *testing.T, o ocitest.Options) *polling {
	p := &polling{t: t, eu: ocitest.New("oci://eu", o), states: make(states)}
	p.request = PollRequest{
		SourceName: "eu", Source: p.eu, Rules: rules{literals: []string{"app", "web"}}, States: p.states,
		Routes: []PolledRoute{{Name: "prod", Swept: true, Since: now.Add(-time.Hour)}},
		Memory: NewPollMemory(), Heads: 10, TempDir: t.TempDir(), Now: func() time.Time { return now },
		Emit: func(_ context.Context, moved []Moved) error {
			for _, m := range moved {
				p.told = append(p.told, m.Repository+":"+m.Tag.Name)
				p.states.add(m.Repository, m.Tag.Name, m.Tag.Digest, now)
			}
			return nil
		},
	}
	return p
}

// known pushes an image that the journal knows.
func (p *polling) known(repository, tag string, c ocitest.Content) {
	p.eu.Push(repository, tag, c)
	p.states.add(repository, tag, c.Digest(), now.Add(-24*time.Hour))
}

// poll polls once; want is what it tells.
func (p *polling) poll(want ...string) PollResult {
	p.t.Helper()
	p.told = nil
	p.eu.ResetCalls()
	result, err := Poll(context.Background(), p.request)
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(p.told)
	if diff := cmp.Diff(want, p.told); diff != "" {
		p.t.Error(diff)
	}
	if n := p.eu.Count(ocitest.GetManifest); n != 0 {
		p.t.Errorf("%d manifests read", n)
	}
	return result
}

func TestPollByDigests(t *testing.T) {
	p := newPolling(t, ocitest.Options{ListDigests: true})
	for i := range 2500 {
		p.known("app", fmt.Sprintf("v%04d", i), image("old"))
	}
	p.known("web", "latest", image("web"))
	if r := p.poll(); r.Repositories != 2 || r.Tags != 2501 || p.eu.Count() != 2 {
		t.Errorf("%+v by %d requests", r, p.eu.Count())
	}
	p.eu.Push("app", "v0007", image("moved"))
	p.eu.Push("app", "v2500", image("new"))
	p.eu.Push("web", "latest", image("web 2"))
	if r := p.poll("app:v0007", "app:v2500", "web:latest"); p.eu.Count() != 2 || r.Moved != 3 {
		t.Errorf("%+v by %d requests", r, p.eu.Count())
	}
	p.poll()
	p.eu.Push("web", "latest", image("web")) // back again
	p.poll("web:latest")
	p.states.add("web", "latest", "", now) // deleted, as far as is known
	p.poll("web:latest")
	p.request.Memory = NewPollMemory() // a restart
	p.eu.Push("web", "v2", image("web"))
	p.poll("web:v2")
}

// Where listings tell names alone, new tags are asked for first, then those
// that moved last, and the others in turn.
func TestPollByNames(t *testing.T) {
	p := newPolling(t, ocitest.Options{})
	for i := range 100 {
		p.known("app", fmt.Sprintf("v%02d", i), image("old"))
	}
	p.states.add("app", "v77", image("old").Digest(), now.Add(-time.Minute))
	if r := p.poll(); r.Heads != 10 || p.eu.Count() != 12 {
		t.Errorf("%+v by %d requests", r, p.eu.Count())
	}
	p.eu.Push("app", "v77", image("moved"))
	p.eu.Push("app", "v98", image("moved"))
	for i := range 3 {
		p.eu.Push("web", fmt.Sprintf("n%d", i), image("new"))
	}
	p.poll("app:v77", "web:n0", "web:n1", "web:n2")
	polls := 0
	for ; len(p.told) == 0 || p.told[len(p.told)-1] != "app:v98"; polls++ {
		if polls > 30 {
			t.Fatal("v98 never had its turn")
		}
		p.told = nil
		if _, err := Poll(context.Background(), p.request); err != nil {
			t.Fatal(err)
		}
	}
	if polls < 5 {
		t.Errorf("after %d polls of 10 HEADs already", polls)
	}
	// More new ones than may be asked for wait for the next poll.
	for i := range 25 {
		p.eu.Push("web", fmt.Sprintf("m%02d", i), image("new"))
	}
	told := 0
	for _, left := range []int64{15, 5, 0} {
		p.told = nil
		r, err := Poll(context.Background(), p.request)
		if err != nil || r.Left != left || r.Heads != 10 {
			t.Errorf("%+v, %v; want %d left", r, err, left)
		}
		told += len(p.told)
	}
	if told != 25 {
		t.Errorf("%d told", told)
	}
}

// What was there at the first look is not new, unless everything that a route
// wants was known before it, or the listing tells its age.
func TestPollTellsNewFromOld(t *testing.T) {
	hour := func(n int) func() time.Time { return func() time.Time { return now.Add(time.Duration(n) * time.Hour) } }
	for name, c := range map[string]struct {
		route       PolledRoute
		rules       rules
		options     ocitest.Options
		first, next []string
	}{
		"swept":                {PolledRoute{Swept: true}, rules{}, ocitest.Options{ListDigests: true}, []string{"app:old"}, []string{"app:new"}},
		"never swept":          {PolledRoute{}, rules{}, ocitest.Options{ListDigests: true}, nil, []string{"app:new"}},
		"names, never swept":   {PolledRoute{}, rules{}, ocitest.Options{}, nil, []string{"app:new"}},
		"ages":                 {PolledRoute{Swept: true}, rules{newest: 1}, ocitest.Options{ListDigests: true}, nil, []string{"app:new"}},
		"ages, an older push":  {PolledRoute{Swept: true, Since: now}, rules{maxAge: time.Hour}, ocitest.Options{ListDigests: true, Now: hour(-1)}, nil, []string{"app:new"}},
		"ages, a younger push": {PolledRoute{Swept: true, Since: now}, rules{maxAge: time.Hour}, ocitest.Options{ListDigests: true, Now: hour(1)}, []string{"app:old"}, []string{"app:new"}},
		"excluded":             {PolledRoute{Swept: true}, rules{excludeTag: "n"}, ocitest.Options{ListDigests: true}, []string{"app:old"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPolling(t, c.options)
			c.route.Name, c.rules.literals = "prod", []string{"app"}
			p.request.Routes, p.request.Rules = []PolledRoute{c.route}, c.rules
			p.eu.Push("app", "old", image("one"))
			p.poll(c.first...)
			p.poll()
			p.eu.Push("app", "new", image("two"))
			p.poll(c.next...)
			p.poll()
		})
	}
}

// A registry that can tell what changed is asked for no more.
func TestPollUnderMarks(t *testing.T) {
	p := newPolling(t, ocitest.Options{ListDigests: true})
	for i := range 50 {
		p.known("app", fmt.Sprintf("v%02d", i), image("old"))
	}
	p.eu.Push("app", "later", image("old"))
	var asked []string
	changed := []oci.Tag{}
	p.request.Rules = rules{literals: []string{"app"}}
	p.request.Source = marked{p.eu, func(ctx context.Context, all iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error] {
		mark := oci.MarkOf(ctx)
		asked = append(asked, mark.Since)
		mark.Next = fmt.Sprint("mark ", len(asked))
		if mark.Since == "" {
			return all
		}
		mark.Partial = true
		return func(yield func(oci.Tag, error) bool) {
			for _, tag := range changed {
				if !yield(tag, nil) {
					return
				}
			}
		}
	}}
	p.poll("app:later")
	if r := p.poll(); r.Unchanged != 1 || r.Heads != 10 {
		t.Errorf("%+v", r)
	}
	changed = []oci.Tag{{Name: "v03", Digest: image("moved").Digest()}, {Name: "v04", Digest: image("old").Digest()}, {Name: "w", Digest: image("new").Digest()}}
	if r := p.poll("app:v03", "app:w"); r.Heads != 0 {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(asked, []string{"", "mark 1", "mark 2"}) {
		t.Errorf("asked since %q", asked)
	}
}

type marked struct {
	oci.Registry
	tags func(context.Context, iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error]
}

func (m marked) Repository(name string) oci.Repository {
	return markedRepository{m.Registry.Repository(name), m}
}

type markedRepository struct {
	oci.Repository
	m marked
}

func (r markedRepository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return r.m.tags(ctx, r.Repository.Tags(ctx))
}

func TestPollFailures(t *testing.T) {
	fault := func(kind error) error { return &oci.RegistryError{Registry: "eu", Operation: "GET tags", Kind: kind} }
	t.Run("one repository", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{ListDigests: true})
		p.known("app", "v1", image("old"))
		p.eu.Push("web", "v1", image("new"))
		p.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
			if c.Repository == "app" {
				return fault(oci.ErrDenied)
			}
			return nil
		})
		if r := p.poll("web:v1"); !errors.Is(r.Sources, oci.ErrDenied) || r.Repositories != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("throttled", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{ListDigests: true})
		p.eu.Push("app", "v1", image("new"))
		p.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
			if c.Repository == "web" {
				return &oci.ThrottledError{Wait: time.Minute, Err: fault(nil)}
			}
			return nil
		})
		var throttled *oci.ThrottledError
		if _, err := Poll(context.Background(), p.request); !errors.As(err, &throttled) || !slices.Equal(p.told, []string{"app:v1"}) {
			t.Errorf("%v, told %v", err, p.told)
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{})
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprintf("r%02d", i))
		}
		p.request.Rules = rules{literals: many}
		p.eu.OnCall(func(context.Context, ocitest.Call) error { return fault(oci.ErrUnreachable) })
		if r := p.poll(); p.eu.Count() != giveUpAfter || r.Sources == nil {
			t.Errorf("%d requests, %+v", p.eu.Count(), r)
		}
	})
	t.Run("a sweep begins", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{ListDigests: true})
		p.eu.Push("app", "v1", image("new"))
		p.eu.Push("web", "v1", image("new"))
		p.request.Stop = func() bool { return len(p.eu.Calls()) > 0 }
		if r := p.poll("app:v1"); !r.Stopped {
			t.Errorf("%+v", r)
		}
	})
	t.Run("no catalog", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{Unlistable: true})
		p.request.Rules = rules{}
		if r := p.poll(); !errors.Is(r.Sources, oci.ErrUnlistable) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the emitter", func(t *testing.T) {
		p := newPolling(t, ocitest.Options{ListDigests: true})
		p.eu.Push("app", "v1", image("new"))
		p.request.Emit = func(context.Context, []Moved) error { return errStopped }
		if _, err := Poll(context.Background(), p.request); !errors.Is(err, errStopped) {
			t.Error(err)
		}
	})
}

// A repository that turns up after the first poll is new; one that the first
// poll could not list is not.
func TestPollOfANewRepository(t *testing.T) {
	p := newPolling(t, ocitest.Options{ListDigests: true})
	p.request.Rules, p.request.Routes = rules{}, []PolledRoute{{Name: "prod"}}
	p.eu.Push("app", "v1", image("one"))
	p.eu.Push("web", "v1", image("one"))
	p.eu.OnCall(func(_ context.Context, c ocitest.Call) error {
		if c.Repository == "web" || c.Method == ocitest.Catalog && len(p.eu.Calls()) == 0 {
			return &oci.RegistryError{Registry: "eu", Kind: oci.ErrInterrupted}
		}
		return nil
	})
	p.poll()
	p.eu.OnCall(nil)
	p.eu.Push("db", "v1", image("one"))
	p.poll("db:v1")
	p.eu.Push("web", "v2", image("one"))
	p.poll("web:v2")
}

// Each repository that several routes want is listed once.
func TestPollForSeveralRoutes(t *testing.T) {
	p := newPolling(t, ocitest.Options{ListDigests: true})
	p.request.Rules = rules{}
	p.request.Routes = []PolledRoute{{Name: "prod", Swept: true}, {Name: "dr"}}
	p.eu.Push("app", "v1", image("one"))
	var moved []Moved
	p.request.Emit = func(_ context.Context, m []Moved) error { moved = append(moved, m...); return nil }
	p.poll()
	if n := p.eu.Count(ocitest.ListTags); n != 1 {
		t.Errorf("listed %d times", n)
	}
	if len(moved) != 1 || !slices.Equal(moved[0].Routes, []string{"prod"}) {
		t.Errorf("%+v", moved)
	}
}
