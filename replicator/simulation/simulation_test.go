package simulation

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSimulation plays the histories of SEEDS seeds from FIRST on, over all
// cores; `make simulate` sets them. With TWICE each is played two times and has
// to go the same way. SEED plays one and shows its way.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if text := os.Getenv("SEED"); text != "" {
		replay(t, uint64(number(t, text)))
		return
	}
	c := &campaign{first: 0, seeds: 100, began: time.Now()}
	if raceEnabled {
		c.seeds = 10
	}
	if text := os.Getenv("SEEDS"); text != "" {
		c.seeds, c.twice, c.told = number(t, text), os.Getenv("TWICE") != "", true
	}
	if text := os.Getenv("FIRST"); text != "" {
		c.first = number(t, text)
	}
	t.Cleanup(func() { c.tell(true) })
	for i := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprintf("core%d", i), func(t *testing.T) {
			t.Parallel()
			for seed, ok := c.next(); ok; seed, ok = c.next() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { c.simulated.Add(int64(hold(t, seed, c.twice))) })
				if t.Failed() {
					return
				}
			}
		})
	}
}

// A campaign is the seeds of one test, and how far they are.
type campaign struct {
	first, seeds int
	twice, told  bool
	began        time.Time

	taken     atomic.Int64
	simulated atomic.Int64 // the worlds' time
	lastTold  atomic.Int64
}

func (c *campaign) next() (seed uint64, ok bool) {
	n := c.taken.Add(1) - 1
	c.tell(false)
	return uint64(c.first) + uint64(n), n < int64(c.seeds)
}

// tell says how far it is, every half a minute and at the end.
func (c *campaign) tell(end bool) {
	const often = 30 * time.Second
	took := time.Since(c.began)
	last := c.lastTold.Load()
	if !c.told || !end && (took-time.Duration(last) < often || !c.lastTold.CompareAndSwap(last, int64(took))) {
		return
	}
	n := min(c.taken.Load(), int64(c.seeds))
	fmt.Printf("%d seeds from %d in %s: %.1f a second, %s of their worlds' time\n",
		n, c.first, took.Round(time.Second), float64(n)/took.Seconds(), time.Duration(c.simulated.Load()).Round(time.Second))
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// hold plays the history of a seed and fails with the shortest one that still
// breaks a promise.
func hold(t *testing.T, seed uint64, twice bool) time.Duration {
	t.Helper()
	h := generate(seed)
	out := play(t, h, twice)
	if len(out.faults) > 0 {
		short := h
		if os.Getenv("SHRINK") != "no" {
			short = shrink(t, h)
		}
		out = play(t, short, true)
		t.Fatalf("seed %d breaks a promise:\n%s\nreplay: SEED=%d go test -run TestSimulation ./replicator/simulation", seed, tell(short, out), seed)
	}
	if twice {
		if again := play(t, h, true); again.hash != out.hash {
			t.Fatalf("seed %d went two ways: %x and %x\n%s", seed, out.hash, again.hash, parted(out, again))
		}
	}
	return out.took
}

// fork plays a history until it goes two ways, and shows where they part.
func fork(t *testing.T, h history) string {
	t.Helper()
	one := play(t, h, true)
	for range 50 {
		if other := play(t, h, true); other.hash != one.hash {
			return parted(one, other)
		}
	}
	return "it went one way 51 times"
}

// parted shows where two runs of a history part.
func parted(one, other outcome) string {
	i := 0
	for i < min(len(one.trace), len(other.trace)) && one.trace[i] == other.trace[i] {
		i++
	}
	next := func(trace []string) string { return strings.Join(trace[i:min(i+14, len(trace))], "\n  ") }
	return fmt.Sprintf("together:\n  %s\none:\n  %s\nother:\n  %s", strings.Join(one.trace[max(i-60, 0):i], "\n  "), next(one.trace), next(other.trace))
}

// shrinkFor bounds how long a shorter history is looked for.
const shrinkFor = 20 * time.Second

// shrink leaves out every step without which the history still fails.
func shrink(t *testing.T, h history) history {
	t.Helper()
	began := time.Now()
	for size := len(h.Steps) / 2; size > 0; size /= 2 {
		for i := 0; i+size <= len(h.Steps) && time.Since(began) < shrinkFor; {
			shorter := h
			shorter.Steps = slices.Delete(slices.Clone(h.Steps), i, i+size)
			if len(play(t, shorter, false).faults) > 0 {
				h = shorter
			} else {
				i += size
			}
		}
	}
	return h
}

// tell shows a history and what came of it.
func tell(h history, out outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, sweep %s, untagged %v, conflict %s, drift %s\n", h.Topology.Name, h.Sweep, h.Untagged, h.Conflict, h.Drift)
	for _, s := range h.Steps {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	b.WriteString("broken:\n  " + strings.Join(out.faults, "\n  "))
	return b.String()
}

// replay plays one seed and shows all that happened, in its shortest form
// where it fails.
func replay(t *testing.T, seed uint64) {
	t.Helper()
	h := generate(seed)
	out := play(t, h, true)
	if len(out.faults) > 0 {
		h = shrink(t, h)
		out = play(t, h, true)
		t.Errorf("seed %d breaks a promise:\n%s", seed, tell(h, out))
	} else {
		t.Log(tell(h, out))
	}
	t.Logf("trace %x\n%s", out.hash, strings.Join(out.trace, "\n"))
	if os.Getenv("TWICE") != "" {
		t.Log(fork(t, h))
	}
}
