package main

import (
	"net/http"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// restarts ends the daemon in three ways during the load, each in the middle of
// whatever it does, and leaves it running.
func (w *world) restarts(d time.Duration) {
	for _, end := range []string{"kill -9", "SIGTERM", "kill -9"} {
		w.wait(d / 4)
		w.life.Lock()
		if end == "SIGTERM" {
			if code := w.daemon.Terminate(time.Minute); code != 0 {
				w.Errorf("twinport ended with %d on SIGTERM under load", code)
			}
		} else {
			w.daemon.Kill()
		}
		w.wait(2 * time.Second) // webhooks are refused, and sent again or lost
		w.daemon.Start()
		w.life.Unlock()
		w.tell("%s, started again", end)
	}
	w.wait(d / 4)
	w.tell("from here on it is one life")
}

// flipped is the registry that seems to hold corrupt content.
const flipped = "ap"

// A fault lasts for a while and is over when do returns.
type fault struct {
	name string
	do   func(w *world, d time.Duration)
}

var faults = []fault{
	{"connections of us are cut, before and within answers and uploads", func(w *world, d time.Duration) {
		w.inject("us", d, cuts...)
	}},
	{"connections of eu are cut", func(w *world, d time.Duration) { w.inject(source, d, cuts...) }},
	{"us is restarted", func(w *world, _ time.Duration) { w.restart("us", 0) }},
	{"ap is stopped for a while", func(w *world, d time.Duration) { w.restart("ap", d) }},
	{"us answers 429 and 503", func(w *world, d time.Duration) {
		w.inject("us", d,
			harness.Fault{Times: 20, Status: http.StatusTooManyRequests, RetryAfter: time.Second},
			harness.Fault{Times: 10, Status: http.StatusServiceUnavailable})
	}},
	{"eu is restarted: what it had not told yet is lost", func(w *world, _ time.Duration) { w.restart(source, 0) }},
	{"ap is frozen for a while", func(w *world, d time.Duration) {
		if err := w.registries["ap"].Freeze(); err != nil {
			w.Fatalf("freeze ap: %v", err)
		}
		w.wait(d)
		if err := w.registries["ap"].Thaw(); err != nil {
			w.Fatalf("thaw ap: %v", err)
		}
	}},
	{"us is slow", func(w *world, d time.Duration) {
		w.inject("us", d, harness.Fault{Delay: 100 * time.Millisecond, Jitter: 400 * time.Millisecond})
	}},
	{"eu is stopped for a while", func(w *world, d time.Duration) { w.restart(source, d) }},
	{flipped + " answers with bits flipped", func(w *world, d time.Duration) {
		w.inject(flipped, d, harness.Fault{Match: harness.Is(http.MethodGet, harness.Manifest, harness.Tag), Times: 5, Corrupt: true})
	}},
}

var cuts = []harness.Fault{
	{Times: 5, Drop: true},
	{Match: harness.Is(http.MethodGet), Times: 5, CutAnswer: 100},
	{Match: harness.Is(http.MethodPut, harness.Upload), Times: 5, CutRequest: 1000},
}

// faults has one fault after the other for so long, at least each once, with a
// rest after each twice as long as it lasted. What is broken is whole again in
// the end.
func (w *world) faults(d time.Duration) {
	end := time.Now().Add(d)
	// Each quarter has all of them, so that quarters can be compared.
	each := min(d/time.Duration(4*3*len(faults)), 15*time.Second)
	for i := 0; i < len(faults) || time.Until(end) > 3*each; i++ {
		f := faults[i%len(faults)]
		w.tell("%s", f.name)
		f.do(w, each)
		w.wait(2 * each)
		if !w.daemon.Process().Alive() {
			w.Fatalf("twinport has ended")
		}
	}
	w.wait(max(time.Until(end), 0))
	for name, p := range w.proxies {
		w.tell("%d requests to %s met a fault", p.Taken(), name)
	}
}

// inject has faults in front of a registry for so long.
func (w *world) inject(name string, d time.Duration, faults ...harness.Fault) {
	for _, f := range faults {
		w.proxies[name].Inject(f)
	}
	w.wait(d)
	w.proxies[name].Clear()
}

// restart kills a registry and starts it again after a while.
func (w *world) restart(name string, d time.Duration) {
	w.registries[name].Stop()
	w.wait(d)
	w.registries[name].Start()
}
