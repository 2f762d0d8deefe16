package check

import (
	"context"
	"errors"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// The checks, in the order in which they are told.
const (
	cName      = "name"
	cConnect   = "connect"
	cTLS       = "tls"
	cAPI       = "api"
	cClock     = "clock"
	cIdentity  = "identity"
	cList      = "list"
	cPull      = "pull"
	cCreate    = "create"
	cPush      = "push"
	cMount     = "mount"
	cReferrers = "referrers"
	cDelete    = "delete"
	cWebhook   = "webhook"
	cEvents    = "events"
)

var order = []string{
	cName, cConnect, cTLS, cAPI, cClock, cIdentity, cList, cPull, cCreate, cPush, cMount, cReferrers, cDelete, cWebhook, cEvents,
}

// How long a step may take: a dead registry is told within seconds.
const (
	reachTime = 5 * time.Second
	askTime   = 10 * time.Second
	listTime  = 20 * time.Second
	probeTime = 40 * time.Second
)

// A run is the look at one registry.
type run struct {
	s     Subject
	found map[string]outcome
	// gone says why nothing more is asked of the registry, empty: it is.
	gone string
	// from and to are repositories that are there, those with a tag first.
	from, to []spot
	// subject is a manifest that the registry holds, to ask for its referrers.
	subject v1.Descriptor
	at      oci.Repository
	planned []string
	asked   bool // planned
}

// A spot is a repository that is there, and a tag of it, empty where it has none.
type spot struct {
	repo oci.Repository
	tag  string
}

func (r *run) all(ctx context.Context) {
	r.reach(ctx)
	r.step(ctx, cIdentity, "", askTime, r.identity)
	unused := ""
	if r.s.From == nil && r.s.To == nil {
		unused = "no route uses this registry"
	}
	noTo := unused
	if noTo == "" && r.s.To == nil {
		noTo = "no route writes to it"
	}
	noReferrers := unused
	if noReferrers == "" && !r.s.Referrers {
		noReferrers = "no route carries referrers"
	}
	r.step(ctx, cList, unused, listTime, r.list)
	r.step(ctx, cPull, unused, askTime, r.pull)
	r.step(ctx, cCreate, noTo, listTime, r.create)
	if noTo == "" {
		r.push(ctx)
	} else {
		for _, name := range []string{cPush, cMount, cDelete} {
			r.found[name] = skipped("not needed: %s", noTo)
		}
	}
	if _, done := r.found[cReferrers]; !done || noReferrers != "" {
		r.step(ctx, cReferrers, noReferrers, askTime, r.referrers)
	}
	r.found[cWebhook] = webhook(r.s.Hook)
	r.events(ctx)
}

// step makes one check: not where it is not needed, or nothing is asked any
// more. What the client got over on its way makes a success a warning.
func (r *run) step(ctx context.Context, name, notNeeded string, limit time.Duration, f func(context.Context) outcome) {
	switch {
	case notNeeded != "":
		r.found[name] = skipped("not needed: %s", notNeeded)
		return
	case r.gone != "":
		r.found[name] = skipped("%s", r.gone)
		return
	}
	r.found[name] = within(ctx, limit, f)
}

func within(ctx context.Context, limit time.Duration, f func(context.Context) outcome) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late(limit))
	defer cancel()
	var (
		mu     sync.Mutex
		detour error
	)
	o := f(oci.WithDetours(ctx, func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if detour == nil && matters(err) {
			detour = err
		}
	}))
	mu.Lock()
	defer mu.Unlock()
	if detour != nil {
		o = o.but(detour)
	}
	return o
}

// matters tells whether a detour could be spared: an API that the registry does
// not serve is no fault of anybody's.
func matters(err error) bool {
	var throttled *oci.ThrottledError
	return errors.Is(err, oci.ErrDenied) || unanswered(err) || errors.As(err, &throttled)
}

// fail tells an error, and asks nothing more of who does not answer.
func (r *run) fail(err error) outcome {
	if unanswered(err) {
		r.gone = "not tried: the registry does not answer"
	}
	return failed(err)
}
