// Package check looks at registries one by one: whether each can be reached,
// whom its client logs in as, and whether that account may do what the routes
// need of it. What it tries leaves nothing behind: where something that it would
// store could not be taken away again, it is not stored, and that is said.
package check

import (
	"context"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// A State is what a check came to.
type State string

// The states. A warning is what copies get over, dearer or for now; skipped is
// what was not needed, or could not be tried.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// A Check is one thing looked at. Detail says what was found, Hint what to do.
type Check struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
}

// A Report is what was found at one registry.
type Report struct {
	Registry string  `json:"registry"`
	Kind     string  `json:"kind"`
	Address  string  `json:"address"`
	Checks   []Check `json:"checks"`
}

// Failed tells whether any check has.
func (r Report) Failed() bool {
	for _, c := range r.Checks {
		if c.State == Failed {
			return true
		}
	}
	return false
}

// A Subject is a registry to look at, and what the routes need of it.
type Subject struct {
	Name, Kind, Address string
	Client              oci.Registry
	// From is what routes read there, To what they write; nil: nothing.
	From, To *Use
	// Referrers: some route carries them.
	Referrers bool
	// Makes: repositories have to be made by a call of their own, not by a push.
	Makes bool
	// Traceless: an upload that is begun and cancelled where there is no
	// repository makes none.
	Traceless bool
	// Signs: requests are signed with the time, and refused where it is far off.
	Signs bool
	// MountHint is what to do where mounts are not granted, empty: nothing.
	MountHint string
	Hook      Hook
	Events    Events
}

// A Use is what routes do with a registry's repositories.
type Use struct {
	// Names are those that routes name, in the registry's own names.
	Names []string
	// Patterns: some routes go by patterns, so that the registry has to list
	// its repositories where they read.
	Patterns bool
	// Match tells whether some route takes (or writes) one of this name.
	Match func(name string) bool
	// Planned gives names that routes will write, by asking their sources; nil
	// where nobody knows.
	Planned func(ctx context.Context) []string
	// Example is a name that the routes' filters allow and nobody uses yet.
	Example string
	// Create: missing repositories are made. Delete: deletions are carried over.
	Create, Delete bool
}

// A Hook is how a registry's webhooks prove themselves.
type Hook struct {
	// NotNeeded says why no webhook is waited for, empty: one is.
	NotNeeded string
	Secrets   []func() (string, error)
	// Verified: deliveries carry a proof of their own.
	Verified bool
}

// A Queue is where a registry's events wait.
type Queue interface {
	// Probe looks whether events may be had and taken away, doing neither.
	Probe(ctx context.Context) (told string, err error)
}

// Events is where events come from when not by webhook.
type Events struct {
	// From names it as the config does (events.sqs), empty: nowhere.
	From  string
	Queue Queue
}

const (
	// aRegistry bounds the look at one registry, what it takes away afterwards
	// excepted.
	aRegistry = 2 * time.Minute
	// sideBySide bounds how many are looked at at once.
	sideBySide = 32
)

// Run looks at registries side by side and reports in their order.
func Run(ctx context.Context, subjects []Subject) []Report {
	reports := make([]Report, len(subjects))
	slots := make(chan struct{}, sideBySide)
	var all sync.WaitGroup
	for i, s := range subjects {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			reports[i] = one(ctx, s)
		})
	}
	all.Wait()
	return reports
}

func one(ctx context.Context, s Subject) Report {
	ctx, cancel := context.WithTimeoutCause(ctx, aRegistry, late(aRegistry))
	defer cancel()
	r := &run{s: s, found: make(map[string]outcome)}
	r.all(ctx)
	report := Report{Registry: s.Name, Kind: s.Kind, Address: s.Address, Checks: []Check{}}
	for _, name := range order {
		o, ok := r.found[name]
		if !ok {
			o = skipped("not tried")
		}
		report.Checks = append(report.Checks, Check{Check: name, State: o.state, Detail: o.detail, Hint: o.hint})
	}
	return report
}
