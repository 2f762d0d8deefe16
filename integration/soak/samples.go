package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// A sample is what the daemon takes of the machine at one moment. Sizes are bytes.
type sample struct {
	goroutines  int64
	descriptors int64
	resident    int64
	heap        int64 // in use, as Go counts it
	journal     int64 // journal.db alone
	log         int64 // the journal's write-ahead log
	other       int64 // all else in the data directory: the spool
	actions     int64 // of the load so far
}

var probe = &http.Client{Timeout: 20 * time.Second}

// sample looks at a daemon that runs.
func (w *world) sample(ctx context.Context, actions int64) (sample, error) {
	w.life.RLock()
	defer w.life.RUnlock()
	out := sample{actions: actions}
	metrics, err := w.metrics(ctx, "go_goroutines", "go_memstats_heap_inuse_bytes")
	if err != nil {
		return out, err
	}
	out.goroutines, out.heap = metrics["go_goroutines"], metrics["go_memstats_heap_inuse_bytes"]
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.daemon.Process().PID()))
	if err != nil {
		return out, err
	}
	out.descriptors = int64(len(open))
	memory, err := w.daemon.Process().Memory()
	if err != nil {
		return out, err
	}
	out.resident = memory.Now
	err = filepath.WalkDir(w.daemon.Data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return vanished(err)
		}
		info, err := entry.Info()
		if err != nil {
			return vanished(err)
		}
		switch entry.Name() {
		case "journal.db":
			out.journal = info.Size()
		case "journal.db-wal", "journal.db-shm":
			out.log += info.Size()
		default:
			out.other += info.Size()
		}
		return nil
	})
	return out, err
}

// vanished leaves out that a file of the spool went while it was looked at.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// metrics reads the values of metrics without labels.
func (w *world) metrics(ctx context.Context, names ...string) (map[string]int64, error) {
	page, err := w.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	out := make(map[string]int64)
	lines := bufio.NewScanner(bytes.NewReader(page))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if !slices.Contains(names, name) {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		out[name] = int64(f)
	}
	if len(out) != len(names) && lines.Err() == nil {
		return nil, fmt.Errorf("metrics have %v, want %v", out, names)
	}
	return out, lines.Err()
}

// A watch samples all along.
type watch struct {
	missed int // samples that the daemon did not give; valid after stop

	cancel  context.CancelFunc
	done    chan struct{}
	samples []sample
}

func startWatch(ctx context.Context, w *world, l *load, every time.Duration) *watch {
	ctx, cancel := context.WithCancel(ctx)
	out := &watch{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(out.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s, err := w.sample(ctx, l.actions())
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				out.missed++
			default:
				out.samples = append(out.samples, s)
			}
		}
	}()
	return out
}

func (w *watch) stop() []sample {
	w.cancel()
	<-w.done
	return w.samples
}

// rest is the most that the daemon takes over two sweeps while nothing is
// pushed: a sweep keeps some connections open for the next.
func (w *world) rest() (most sample) {
	for range 2 * 2 * sweepEvery / time.Second {
		w.wait(time.Second / 2)
		s, err := w.sample(w.Context(), 0)
		if err != nil {
			w.Fatalf("sample: %v", err)
		}
		most.goroutines, most.descriptors = max(most.goroutines, s.goroutines), max(most.descriptors, s.descriptors)
		most.resident, most.heap = max(most.resident, s.resident), max(most.heap, s.heap)
		most.other = max(most.other, s.other)
	}
	return most
}

// alive has the daemon collect its garbage and tells how many bytes are alive on
// its heap. What they are, and what its goroutines do, goes to .cache/profile,
// as `go tool pprof -base` compares it.
func (w *world) alive(when string) int64 {
	dir := filepath.Join(harness.Root(), ".cache", "profile")
	err := os.MkdirAll(dir, 0o755)
	for _, kind := range []string{"goroutine", "heap"} {
		var body []byte
		if err == nil {
			body, err = w.get(w.Context(), "/debug/pprof/"+kind+"?gc=1")
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "soak."+when+"."+kind), body, 0o600)
		}
	}
	var metrics map[string]int64
	if err == nil {
		metrics, err = w.metrics(w.Context(), "go_memstats_heap_alloc_bytes")
	}
	if err != nil {
		w.Fatalf("profile: %v", err)
	}
	return metrics["go_memstats_heap_alloc_bytes"]
}

// get asks the daemon's admin address.
func (w *world) get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.daemon.Admin()+address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := probe.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", address, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 64<<20))
}

// restAgain waits until goroutines and descriptors are about what they were at
// rest before, and returns the last sample either way.
func (w *world) restAgain(before sample) (last sample) {
	err := harness.Poll(w.Context(), 4*time.Minute, func(ctx context.Context) (err error) {
		if last, err = w.sample(ctx, 0); err != nil {
			return err
		}
		if last.goroutines > restAllowed(before.goroutines) || last.descriptors > restAllowed(before.descriptors) {
			return fmt.Errorf("%d goroutines and %d descriptors, before the load %d and %d",
				last.goroutines, last.descriptors, before.goroutines, before.descriptors)
		}
		return nil
	})
	if err != nil {
		w.tell("not at rest again: %v", err)
	}
	return last
}
