package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// P1, P9: 20,000 webhooks by 32 senders while the destination is down: all
// answered 202, memory below 150 MiB, duplicates coalesced; then the
// destination comes back and all is proven.
func TestAFloodOfWebhooksIsKeptInLittleMemory(t *testing.T) {
	w := build(t, setup{silent: true, exact: true, direct: true})
	const repositories, tags = 20, 25
	variants := w.content.Variants(repositories * tags)
	err := harness.Each(t.Context(), repositories, func(ctx context.Context, r int) error {
		for i := range tags {
			if err := w.eu.Push(ctx, fmt.Sprintf("team/app%d", r), variants[r*tags+i], fmt.Sprintf("v%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reg["us"].Stop()
	w.Start()
	total := scaled(20000, 4000)
	var next, refused atomic.Int64
	var senders sync.WaitGroup
	began := time.Now()
	for range 32 {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= total {
					return
				}
				n := i % len(variants)
				body := harness.PushEvent(w.reg["eu"].Addr, fmt.Sprintf("team/app%d", n/tags), fmt.Sprintf("v%d", n%tags), variants[n], time.Now())
				if code, answer := w.Post(t.Context(), "eu", body); code != 202 {
					if refused.Add(1) == 1 {
						t.Errorf("webhook %d was answered %d: %s", i, code, answer)
					}
				}
			}
		}()
	}
	senders.Wait()
	took := time.Since(began)
	t.Logf("%d webhooks in %s: %.0f/s", total, took, float64(total)/took.Seconds())
	if n := refused.Load(); n > 0 {
		t.Errorf("%d webhooks were not answered 202", n)
	}
	line := w.WaitStatus("prod", "us", "the queue", soon, func(r harness.RouteStatus) bool { return r.Waiting+r.Running == len(variants) })
	t.Logf("waiting: %d, lag %.1f s", line.Waiting, *line.Lag)
	w.reg["us"].Start()
	w.WaitSettled(2 * time.Minute)
	err = harness.Each(t.Context(), len(variants), func(ctx context.Context, n int) error {
		return w.us.Has(ctx, fmt.Sprintf("team/app%d", n/tags), fmt.Sprintf("v%d", n%tags), variants[n], false)
	})
	if err != nil {
		t.Error(err)
	}
	w.below(150 << 20)
	w.noFindings()
}

// P9: a blob of 4 GiB passes through less than 100 MiB.
func TestABigBlobIsCopiedInLittleMemory(t *testing.T) {
	w := start(t, setup{exact: true, disk: true})
	size := int64(scaled(4096, 512)) << 20
	blob := w.content.BigBlob(size)
	img := w.content.ImageOf(blob)
	w.reg["eu"].PlantBlob("team/big", blob)
	began := time.Now()
	w.push("team/big", img, "v1")
	harness.WaitFor(t, "the big image", 3*time.Minute, func(ctx context.Context) error {
		return w.us.Has(ctx, "team/big", "v1", img, false)
	})
	w.WaitSettled(soon)
	took := time.Since(began)
	t.Logf("%d MiB in %s: %.0f MiB/s", size>>20, took, float64(size>>20)/took.Seconds())
	w.below(100 << 20)
	// However many requests a machine's pace made of it, each byte is read once.
	var read int64
	for line := range strings.Lines(w.metrics(t)) {
		if value, ok := strings.CutPrefix(line, `twinport_source_read_bytes_total{registry="eu"} `); ok {
			float, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			read = int64(float)
		}
	}
	if read < size || read > size+1<<20 {
		t.Errorf("%d bytes were read of a blob of %d", read, size)
	}
}

// below checks the most memory that was ever resident.
func (w *world) below(limit int64) {
	w.t.Helper()
	m, err := w.Process().Memory()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("memory: peak %d MiB, now %d MiB, of it anonymous %d MiB", m.Peak>>20, m.Now>>20, m.Anon>>20)
	if m.Peak > limit {
		w.t.Errorf("peak memory is %d MiB, want at most %d", m.Peak>>20, limit>>20)
	}
}
