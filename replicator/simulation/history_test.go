package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// A history is all that happens to a world from outside, and the world's shape.
type history struct {
	Seed     uint64
	Topology topology
	Sweep    time.Duration // 0: never, and then no webhook is lost
	Untagged bool
	Conflict string
	Drift    string
	Steps    []step
}

// A kind is what happens in one step.
type kind string

const (
	push    kind = "push"    // a user moves a tag to a content: a push, a retag, a rollback
	remove  kind = "delete"  // a user deletes a tag
	attach  kind = "attach"  // a user pushes a signature
	ail     kind = "ail"     // a registry falls ill for a while
	forget  kind = "forget"  // a destination loses content
	crash   kind = "crash"   // the daemon dies at the N-th stage of the journal from now
	restart kind = "restart" // the daemon is stopped and started
	reload  kind = "reload"  // the config changes in nothing that matters
	narrow  kind = "narrow"  // the config leaves out a destination

	meddle  kind = "meddle"  // somebody else moves a destination's tag
	pause   kind = "pause"   // an operator pauses a route
	resume  kind = "resume"  // and lets it go on
	cancel  kind = "cancel"  // an operator holds a tag's jobs
	retry   kind = "retry"   // an operator has all jobs of a repository tried again
	resolve kind = "resolve" // an operator settles a conflict
)

// A step is one thing that happens.
type step struct {
	At                        time.Duration
	Kind                      kind
	Registry, Repository, Tag string
	Content                   int
	N                         int
	Lost                      bool          // its webhook never comes
	Late                      time.Duration // its webhook takes up to so long
	Trouble                   trouble
	PerMille                  int
	Length                    time.Duration
}

func (s step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8.3fs %s", s.At.Seconds(), s.Kind)
	switch s.Kind {
	case push:
		fmt.Fprintf(&b, " %s/%s:%s → content %d", s.Registry, s.Repository, s.Tag, s.Content)
	case remove:
		fmt.Fprintf(&b, " %s/%s:%s", s.Registry, s.Repository, s.Tag)
	case attach:
		fmt.Fprintf(&b, " artifact %d to content %d in %s/%s", s.N, s.Content, s.Registry, s.Repository)
	case ail:
		fmt.Fprintf(&b, " %s: %s, %d‰ for %s", s.Registry, s.Trouble, s.PerMille, s.Length)
	case forget:
		fmt.Fprintf(&b, " %s/%s:%s, way %d", s.Registry, s.Repository, s.Tag, s.N)
	case crash:
		fmt.Fprintf(&b, " at stage %d from now", s.N)
	case narrow:
		fmt.Fprintf(&b, " without %s", s.Registry)
	case meddle:
		fmt.Fprintf(&b, " %s/%s:%s → foreign content %d", s.Registry, s.Repository, s.Tag, s.Content)
	case pause, resume:
		fmt.Fprintf(&b, " the route from %s", s.Registry)
	case cancel, retry:
		fmt.Fprintf(&b, " %s:%s", s.Repository, s.Tag)
	case resolve:
		fmt.Fprintf(&b, " %s:%s, %s is right", s.Repository, s.Tag, s.Registry)
	}
	if s.Lost {
		b.WriteString(", its webhook is lost")
	}
	return b.String()
}

// A topology says what feeds what.
type topology struct {
	Name   string
	Routes [][]string // from, then the destinations
	Pushed []string   // where users push
}

var topologies = []topology{
	{"one-way", [][]string{{"eu", "us"}}, []string{"eu"}},
	{"fan-out", [][]string{{"eu", "us", "ap"}}, []string{"eu"}},
	{"chain", [][]string{{"eu", "us"}, {"us", "ap"}}, []string{"eu"}},
	{"pair", [][]string{{"eu", "us"}, {"us", "eu"}}, []string{"eu", "us"}},
}

func (t topology) registries() []string {
	var names []string
	for _, route := range t.Routes {
		for _, name := range route {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// source is what feeds a registry, "" where nothing does.
func (t topology) source(name string) string {
	for _, route := range t.Routes {
		if slices.Contains(route[1:], name) {
			return route[0]
		}
	}
	return ""
}

// feeds tells whether a registry is some route's source.
func (t topology) feeds(name string) bool {
	return slices.ContainsFunc(t.Routes, func(route []string) bool { return route[0] == name })
}

func (t topology) twoWay() bool { return t.Name == "pair" }

func (h history) routes() []plan.Route {
	var routes []plan.Route
	for _, r := range h.Topology.Routes {
		routes = append(routes, plan.Route{
			Name: r[0] + "-" + strings.Join(r[1:], "-"), From: r[0], To: r[1:], Referrers: "true", Drift: h.Drift, Conflict: h.Conflict,
			Untagged: h.Untagged, RPO: time.Minute, Sweep: h.Sweep, Proof: 2 * time.Minute,
		})
	}
	return routes
}

// options are what a registry of the history can do.
func (h history) options(name string) ocitest.Options {
	d := of(h.Seed, "options "+name, 0)
	return ocitest.Options{
		ReferrersAPI: d.also("referrers").hits(500), Resumable: d.also("resumable").hits(500), NoMount: d.also("mount").hits(250),
		NoRanges: d.also("ranges").hits(250), ListDigests: d.also("digests").hits(500), NoSizes: d.also("sizes").hits(100),
	}
}

var (
	repositories = []string{"team/app", "team/web"}
	tags         = []string{"latest", "prod", "v1"}
)

const contents = 8

// generate makes the history of a seed.
func generate(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 0x7477696e706f7274))
	h := history{Seed: seed, Topology: topologies[r.IntN(len(topologies))], Drift: pick(r, "keep", "overwrite"), Conflict: pick(r, "ask", "newest")}
	if r.IntN(3) > 0 {
		h.Sweep = time.Duration(20+r.IntN(60)) * time.Second
	}
	h.Untagged = r.IntN(4) == 0
	registries := h.Topology.registries()
	length := time.Duration(1+r.IntN(40)) * time.Second
	// Histories differ in what they are full of: each has some troubles only.
	crashes, ills, forgets := r.IntN(3) > 0, r.IntN(3), h.Sweep > 0 && r.IntN(3) == 0
	for range 3 + r.IntN(22) {
		s := step{At: time.Duration(r.Int64N(int64(length))), Registry: h.Topology.Pushed[r.IntN(len(h.Topology.Pushed))],
			Repository: repositories[min(r.IntN(4), 1)], Tag: tags[min(r.IntN(6), len(tags)-1)], Content: r.IntN(contents), N: 1 + r.IntN(1000)}
		if r.IntN(3) == 0 {
			s.Late = time.Duration(r.IntN(10)) * time.Second
		}
		s.Lost = h.Sweep > 0 && r.IntN(5) == 0
		switch n := r.IntN(20); {
		case n < 12:
			s.Kind = push
		case n == 12:
			s.Kind = remove
		case n == 13:
			s.Kind = attach
		case n < 16:
			if crashes {
				s.Kind, s.N = crash, 1+r.IntN(40)
			}
		case n == 16:
			s.Kind = []kind{restart, reload, narrow}[r.IntN(3)]
			if s.Kind == narrow {
				s.Registry = h.routes()[0].To[0]
				if h.Sweep == 0 || h.Topology.twoWay() {
					s.Kind = reload
				}
			}
		case n == 17 && forgets:
			s.Kind = forget
			s.Registry = registries[1+r.IntN(len(registries)-1)]
		case ills > 0:
			s.Kind, s.Registry, s.Trouble = ail, registries[r.IntN(len(registries))], troubles[r.IntN(len(troubles))]
			if s.Trouble == corrupt && h.Sweep == 0 {
				s.Trouble = deaf // five damaged copies are enough for a job to wait for a person, or a sweep
			}
			s.PerMille, s.Length = []int{50, 200, 500, 1000}[r.IntN(4)], time.Duration(1+r.IntN(20))*time.Second
		}
		if s.Kind != "" {
			h.Steps = append(h.Steps, s)
		}
	}
	h.Steps = append(h.Steps, people(h, length)...)
	slices.SortStableFunc(h.Steps, func(a, b step) int { return int(a.At - b.At) })
	return h
}

// people are the steps that operators and strangers add to every second
// history, and the writes that come late. They are drawn apart: the others stay
// what they are.
func people(h history, length time.Duration) (steps []step) {
	r := rand.New(rand.NewPCG(h.Seed, 0x6d6564646c65))
	if r.IntN(2) == 0 {
		return nil
	}
	registries := h.Topology.registries()
	for range 1 + r.IntN(5) {
		s := step{At: time.Duration(r.Int64N(int64(length))), Repository: repositories[min(r.IntN(4), 1)], Tag: tags[min(r.IntN(6), len(tags)-1)], Content: r.IntN(2)}
		from := h.Topology.Routes[r.IntN(len(h.Topology.Routes))][0]
		to := registries[1+r.IntN(len(registries)-1)]
		after := time.Duration(1+r.IntN(20)) * time.Second
		switch r.IntN(6) {
		case 0:
			s.Kind, s.Registry = cancel, from
		case 1:
			s.Kind, s.Registry = retry, from
		case 2:
			s.Kind, s.Registry = pause, from
			steps = append(steps, step{At: s.At + after, Kind: resume, Registry: from})
		case 3:
			if h.Sweep > 0 { // else nobody looks again
				s.Kind, s.Registry, s.Trouble, s.PerMille, s.Length = ail, to, late, []int{200, 500, 1000}[r.IntN(3)], after
			}
		default:
			if s.Kind, s.Registry = meddle, to; h.Topology.twoWay() {
				s.Kind, s.Registry = resolve, registries[r.IntN(len(registries))]
			}
		}
		if s.Kind != "" {
			steps = append(steps, s)
		}
	}
	return steps
}

// calmly tells whether nothing in the history disturbs what the daemon knows.
func (h history) calmly() bool {
	return !slices.ContainsFunc(h.Steps, func(s step) bool {
		switch s.Kind {
		case crash, restart, reload, narrow, forget:
			return true
		case ail:
			return s.Trouble != late
		}
		return false
	})
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// foreign gives an image that nobody pushes to a source.
func foreign(n int) ocitest.Content { return strange()[n] }

var strange = sync.OnceValue(func() []ocitest.Content {
	return []ocitest.Content{ocitest.Image("foreign", 1), ocitest.Index(ocitest.Image("foreign platform", 1))}
})

// content gives one of the images that users push: some share layers, some are
// indexes, some are artifacts.
func content(n int) ocitest.Content { return pool()[n] }

var pool = sync.OnceValue(func() []ocitest.Content {
	layer := func(n int) ocitest.Blob { return ocitest.Layer(fmt.Sprintf("layer%d", n), 200+n) }
	all := make([]ocitest.Content, contents)
	for n := range 5 {
		all[n] = ocitest.ImageOf(fmt.Sprintf("image%d", n), layer(n), layer(n+1))
	}
	all[5] = ocitest.Index(all[0], ocitest.ImageOf("other platform", layer(0), layer(9)))
	all[6] = ocitest.DockerImage("docker", 1)
	all[7] = ocitest.HelmChart("chart")
	return all
})

// referrer is one of three artifacts that refer to a content.
func referrer(n, which int) ocitest.Content {
	return signatures()[n*3+which%3]
}

var signatures = sync.OnceValue(func() []ocitest.Content {
	var all []ocitest.Content
	for n := range contents {
		subject := content(n).Descriptor()
		for which := range 3 {
			all = append(all, ocitest.Artifact(fmt.Sprintf("signature %d of %d", which, n), "application/vnd.example.signature", &subject))
		}
	}
	return all
})
