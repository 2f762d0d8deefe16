package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// A setup says what a test's world looks like; the zero value is a registry
// eu whose own notifications go to twinport, a registry us, and the route
// "prod" between them with `sweep: never`.
type setup struct {
	to     []string // default us
	route  []string // further keys of the route; `sweep: never` where empty
	twoWay bool     // a second route, "back", from us to eu; us notifies too
	relays bool     // notifications go through a relay each
	silent bool     // no notifications
	exact  bool     // no race detector: memory or rates are measured
	disk   bool     // registries keep gigabytes
	direct bool     // the config names the registries, not their proxies
	wires  bool     // the config names wires to the proxies
	source harness.RegistryOptions
	others harness.RegistryOptions
	lines  []string // further top-level lines
	volume int64    // bytes of a filesystem for the data directory; 0: none of its own
	clock  bool     // the daemon's clock can be stepped
}

// A world is what a test plays with; eu is the first registry.
type world struct {
	*harness.Daemon
	t       *testing.T
	reg     map[string]*harness.Dist
	proxy   map[string]*harness.Proxy // in front of each registry, for twinport alone
	wire    map[string]*harness.Wire  // in front of the proxies, where asked for
	relay   map[string]*harness.Relay
	eu, us  *harness.Client // past the proxies
	content *harness.Generator
}

// build makes the world and starts the registries, not twinport.
func build(t *testing.T, s setup) *world {
	t.Helper()
	if s.to == nil {
		s.to = []string{"us"}
	}
	if s.route == nil {
		s.route = []string{"sweep: never"}
	}
	w := &world{
		Daemon: harness.NewDaemon(t, harness.Config{Lines: s.lines}), t: t,
		reg: make(map[string]*harness.Dist), proxy: make(map[string]*harness.Proxy), relay: make(map[string]*harness.Relay),
		wire:    make(map[string]*harness.Wire),
		content: harness.NewGenerator(seedOf(t.Name())),
	}
	w.Race = !s.exact && !testing.Short()
	if s.volume > 0 {
		w.Volume = harness.NewVolume(t, s.volume)
	}
	if s.clock {
		w.Clock = harness.NewClock(t)
	}
	for i, name := range append([]string{"eu"}, s.to...) {
		options := s.others
		if i == 0 {
			options = s.source
		}
		options.OnDisk = s.disk
		if !s.silent && (i == 0 || s.twoWay) {
			endpoint := w.Endpoint(name)
			if s.relays {
				w.relay[name] = harness.StartRelay(t, endpoint.URL, endpoint.Authorization)
				endpoint = harness.Endpoint{URL: w.relay[name].URL}
			}
			if options.Notify == nil {
				options.Notify = []harness.Endpoint{endpoint}
			}
		}
		w.reg[name] = harness.StartRegistry(t, name, options)
		w.proxy[name] = harness.StartProxy(t, w.reg[name].Addr)
		addr := w.proxy[name].Addr
		switch {
		case s.direct:
			addr = w.reg[name].Addr
		case s.wires:
			w.wire[name] = harness.StartWire(t, addr)
			addr = w.wire[name].Addr
		}
		w.Config.Registries = append(w.Config.Registries, harness.RegistryConfig{
			Name: name, Addr: addr, Username: options.Username, Password: options.Password,
		})
	}
	w.Config.Routes = []harness.RouteConfig{{Name: "prod", From: "eu", To: s.to, Lines: s.route}}
	if s.twoWay {
		w.Config.Routes = append(w.Config.Routes, harness.RouteConfig{Name: "back", From: "us", To: []string{"eu"}, Lines: s.route})
	}
	w.WriteConfig()
	w.eu, w.us = w.reg["eu"].Client(), w.reg[s.to[0]].Client()
	return w
}

// start builds the world and starts twinport.
func start(t *testing.T, s setup) *world {
	t.Helper()
	w := build(t, s)
	w.Start()
	return w
}

func seedOf(name string) uint64 {
	seed := uint64(14695981039346656037)
	for _, c := range []byte(name) {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return seed
}

// scaled is the number for the full run, or the smaller one with -short.
func scaled(full, short int) int {
	if testing.Short() {
		return short
	}
	return full
}

// push pushes to eu and fails the test where that fails.
func (w *world) push(repository string, g *harness.Graph, tags ...string) {
	w.t.Helper()
	if err := w.eu.Push(w.t.Context(), repository, g, tags...); err != nil {
		w.t.Fatalf("push: %v", err)
	}
}

// attached is what belongs to an image and travels with it.
type attached struct {
	root      *harness.Graph
	signature *harness.Graph
	referrers []*harness.Graph
}

// signed makes a multi-arch image with a cosign signature and n referrers.
func (w *world) signed(n int, spec harness.ImageSpec) attached {
	a := attached{root: w.content.MultiArch(spec, "amd64", "arm64")}
	a.signature = w.content.Signature(a.root)
	for range n {
		a.referrers = append(a.referrers, w.content.Artifact("example/sbom", a.root, nil))
	}
	return a
}

// pushUntagged pushes the image by digest and all that belongs to it.
func (a attached) pushUntagged(ctx context.Context, c *harness.Client, repository string) error {
	if err := c.Push(ctx, repository, a.root); err != nil {
		return err
	}
	if err := c.Push(ctx, repository, a.signature, harness.SignatureTag(a.root)); err != nil {
		return err
	}
	for _, r := range a.referrers {
		if err := c.PushReferrer(ctx, repository, r); err != nil {
			return err
		}
	}
	return nil
}

// belongings checks that all that belongs to the image is there and listed.
func (a attached) belongings(ctx context.Context, c *harness.Client, repository string) error {
	if err := c.Has(ctx, repository, harness.SignatureTag(a.root), a.signature, true); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	if len(a.referrers) == 0 {
		return nil
	}
	listed, _, err := c.Manifest(ctx, repository, harness.FallbackTag(a.root))
	if err != nil {
		return fmt.Errorf("fallback tag: %w", err)
	}
	for _, r := range a.referrers {
		if err := c.Has(ctx, repository, "", r, true); err != nil {
			return fmt.Errorf("referrer: %w", err)
		}
		if !strings.Contains(string(listed), r.Digest.String()) {
			return fmt.Errorf("referrer %s is not listed", r.Digest)
		}
	}
	return nil
}

// noFindings fails where there is a finding of a kind that is not allowed.
func (w *world) noFindings(allowed ...string) {
	w.t.Helper()
	findings, err := w.Findings(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range findings {
		if !slices.Contains(allowed, f.Kind) {
			w.t.Errorf("finding %s about %s/%s:%s %s: %s", f.Kind, f.Registry, f.Repository, f.Tag, f.Digest, f.Message)
		}
	}
}

// sameTags checks that a destination's repository has exactly the source's tags.
func (w *world) sameTags(ctx context.Context, repository, destination string) error {
	want, err := w.eu.Tags(ctx, repository)
	if err != nil {
		return err
	}
	got, err := w.reg[destination].Client().Tags(ctx, repository)
	if err != nil {
		return err
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("%s has tags %v, want %v", repository, got, want)
	}
	return nil
}

// absent checks that a tag does not exist.
func absent(ctx context.Context, c *harness.Client, repository, tag string) error {
	d, err := c.Digest(ctx, repository, tag)
	if errors.Is(err, harness.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s:%s exists as %s", repository, tag, d)
}

const soon = 60 * time.Second
