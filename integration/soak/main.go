// Command soak puts the real twinport under constant load with faults, and
// tells whether anything of it grows that should not.
//
//	go -C integration run ./soak -duration 30m
//
// A real registry takes pushes, retags and deletes at a constant rate and tells
// of them by its own notifications; two others have to follow. Connections are
// cut, registries restarted, frozen and stopped for a while. In the first fifth
// of the time the daemon itself is killed and restarted; the rest is one life,
// sampled all along. Then the load stops, everything has to converge, and the
// daemon has to be as small as it was. It ends with 0, or with 1 and what grew.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

func main() {
	duration := flag.Duration("duration", 30*time.Minute, "how long the load lasts, at least 1m")
	rate := flag.Float64("rate", 4, "pushes, retags and deletes per second")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what the load is made from")
	flag.Parse()
	if *duration < time.Minute || *rate <= 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "soak: -duration has to be at least 1m, -rate above 0, and nothing else is taken")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s := harness.NewStage(ctx, "soak")
	code := s.Run(func() { soak(s, *duration, *rate, *seed) })
	if ctx.Err() != nil {
		code = 130
	}
	stop()
	os.Exit(code)
}

const (
	source = "eu"
	route  = "prod"

	sweepEvery = 20 * time.Second
)

var destinations = []string{"us", "ap"}

// A world is what the soak plays with.
type world struct {
	*harness.Stage
	registries map[string]*harness.Dist
	proxies    map[string]*harness.Proxy // in front of each registry, for twinport alone
	began      time.Time

	// life is held while the daemon is taken down and started again, and by
	// who looks at it.
	life   sync.RWMutex
	daemon *harness.Daemon
}

func build(s *harness.Stage) *world {
	for _, name := range []string{harness.Registry, harness.Twinport} {
		if _, err := harness.Binary(name); err != nil {
			s.Fatalf("%v", err)
		}
	}
	w := &world{
		Stage: s, daemon: harness.NewDaemon(s, harness.Config{}),
		registries: make(map[string]*harness.Dist), proxies: make(map[string]*harness.Proxy),
	}
	config := &w.daemon.Config
	for _, name := range append([]string{source}, destinations...) {
		var options harness.RegistryOptions
		if name == source {
			options.Notify = []harness.Endpoint{w.daemon.Endpoint(name)}
		}
		w.registries[name] = harness.StartRegistry(s, name, options)
		w.proxies[name] = harness.StartProxy(s, w.registries[name].Addr)
		config.Registries = append(config.Registries, harness.RegistryConfig{Name: name, Addr: w.proxies[name].Addr})
	}
	config.Routes = []harness.RouteConfig{{
		Name: route, From: source, To: destinations,
		Lines: []string{"rpo: 10m", "sweep: " + sweepEvery.String(), "deletes: {mirror: {grace: 10s, atMost: 100%}}"},
	}}
	w.daemon.WriteConfig()
	w.daemon.Start()
	return w
}

func soak(s *harness.Stage, duration time.Duration, rate float64, seed uint64) {
	s.Say("Building and starting three registries and twinport …")
	w := build(s)
	w.began = time.Now()
	load := newLoad(w.registries[source].Addr, rate, seed)
	load.plant(s)
	w.converge(load)
	before := w.rest()
	r := report{before: before, alive: w.alive("before")}
	s.Say("%s of load at %.1f a second, seed %d; log of the daemon: %s", duration, rate, seed, w.daemon.LogPath())

	w.began = time.Now()
	load.start(s.Context())
	w.restarts(duration / 5)
	watch := startWatch(s.Context(), w, load, min(max(duration/150, time.Second), 15*time.Second))
	w.faults(duration * 4 / 5)
	load.stop()
	samples := watch.stop()
	w.tell("the load has stopped: %s", load)
	if load.broken() != nil {
		s.Fatalf("load: %v", load.broken())
	}
	took := w.converge(load)
	w.tell("everything has converged after %s", took.Round(100*time.Millisecond))
	after := w.restAgain(before)
	r.aliveAgain = w.alive("after")
	w.findings()
	r.after, r.samples, r.missed = after, samples, watch.missed
	w.judge(r)
	w.commands()
	if code := w.daemon.Terminate(time.Minute); code != 0 {
		s.Errorf("twinport ended with %d on SIGTERM", code)
	}
	if s.Failed() {
		s.Say("soak: failed")
		return
	}
	s.Say("soak: nothing lost, nothing grew")
}

// tell says what happens, with the time since the load began.
func (w *world) tell(format string, args ...any) {
	w.Say("%8s  %s", time.Since(w.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// wait waits, and ends the program where it is interrupted.
func (w *world) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.Context().Done():
		w.Fatalf("interrupted")
	}
}
