package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// BenchmarkWebhooks is the rate of webhooks answered 202, each synced to disk
// first, by 32 senders of one event each while the destination is down; beside
// it what the machine's disk can do: syncs of 4 KiB a second, before and after.
func BenchmarkWebhooks(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkWebhooks(b) })
	b.Run("postgres", func(b *testing.B) {
		p := harness.StartPostgres(b)
		benchmarkWebhooks(b, "database: "+p.URL(p.Addr))
	})
}

func benchmarkWebhooks(b *testing.B, lines ...string) {
	d := harness.NewDaemon(b, harness.Config{
		Lines:      lines,
		Registries: []harness.RegistryConfig{{Name: "eu", Addr: "127.0.0.1:1"}, {Name: "us", Addr: "127.0.0.1:2"}},
		Routes:     []harness.RouteConfig{{Name: "prod", From: "eu", To: []string{"us"}, Lines: []string{"sweep: never"}}},
	})
	d.Start()
	variants := harness.NewGenerator(1).Variants(500)
	work := make(chan int)
	done := make(chan error, 32)
	took := make([][]time.Duration, 32)
	syncs := syncRate(b)
	b.ResetTimer()
	for sender := range took {
		go func() {
			var failed error
			for i := range work {
				began := time.Now()
				body := harness.PushEvent("127.0.0.1:1", fmt.Sprintf("team/app%d", i%20), fmt.Sprintf("v%d", i%500), variants[i%500], time.Now())
				if code, answer := d.Post(b.Context(), "eu", body); code != 202 {
					failed = fmt.Errorf("webhook %d was answered %d: %s", i, code, answer)
				}
				took[sender] = append(took[sender], time.Since(began))
			}
			done <- failed
		}()
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	for range took {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric((syncs+syncRate(b))/2, "syncs/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
}

// syncRate is how often a second the machine makes 4 KiB durable.
func syncRate(b *testing.B) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "page"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	n, began := 0, time.Now()
	for ; time.Since(began) < 200*time.Millisecond; n++ {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkPushToProof is the time from the end of a push, told by the
// registry's own notification, to its proof at the destination.
func BenchmarkPushToProof(b *testing.B) {
	d := harness.NewDaemon(b, harness.Config{})
	eu := harness.StartRegistry(b, "eu", harness.RegistryOptions{Notify: []harness.Endpoint{d.Endpoint("eu")}})
	us := harness.StartRegistry(b, "us", harness.RegistryOptions{})
	d.Config = harness.Config{
		Registries: []harness.RegistryConfig{{Name: "eu", Addr: eu.Addr}, {Name: "us", Addr: us.Addr}},
		Routes:     []harness.RouteConfig{{Name: "prod", From: "eu", To: []string{"us"}, Lines: []string{"sweep: never"}}},
	}
	d.WriteConfig()
	d.Start()
	content := harness.NewGenerator(1)
	proven := 0
	for b.Loop() {
		b.StopTimer()
		img := content.Image(harness.ImageSpec{Layers: 2})
		b.StartTimer()
		if err := eu.Client().Push(b.Context(), "team/app", img, fmt.Sprintf("v%d", proven)); err != nil {
			b.Fatal(err)
		}
		proven++
		d.WaitStatus("prod", "us", "the proof", time.Minute, func(r harness.RouteStatus) bool { return r.Proven >= proven })
	}
}
