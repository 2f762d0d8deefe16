package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// P1: the power goes while webhooks come: what is on the disk in some moment,
// whatever the daemon was doing, is a sound journal with every push that was
// answered 2xx by then, and a daemon that starts on it proves them.
func TestThePowerIsLostAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, exact: true, direct: true})
	pushes := w.content.Variants(40)
	for _, g := range pushes {
		w.push("team/app", g)
	}
	w.reg["us"].Stop() // so that all of them wait
	w.Start()
	var mu sync.Mutex
	answered := map[string]*harness.Graph{}
	ctx, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	for s := range 4 {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				tag, g := fmt.Sprintf("s%d-%d", s, n), pushes[n%len(pushes)]
				body := harness.PushEvent(w.reg["eu"].Addr, "team/app", tag, g, time.Now())
				if code, _ := w.Post(ctx, "eu", body); code/100 == 2 {
					mu.Lock()
					answered[tag] = g
					mu.Unlock()
				}
			}
		})
	}
	type loss struct {
		dir  string
		sure map[string]*harness.Graph
	}
	var losses []loss
	for range scaled(4, 2) {
		mu.Lock()
		until := len(answered) + 10 + rand.IntN(60)
		mu.Unlock()
		harness.WaitFor(t, "webhooks to be answered", soon, func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if len(answered) < until {
				return fmt.Errorf("%d of %d", len(answered), until)
			}
			return nil
		})
		l := loss{dir: filepath.Join(t.TempDir(), "data")}
		w.Process().Freeze(t)
		mu.Lock()
		l.sure = maps.Clone(answered)
		mu.Unlock()
		copyJournal(t, w.Data(), l.dir, len(losses)%2 == 0)
		w.Process().Thaw(t)
		losses = append(losses, l)
	}
	stop()
	senders.Wait()
	w.Kill()
	for i, l := range losses {
		d := harness.NewDaemon(t, w.Config)
		if err := errors.Join(os.Remove(d.Data()), os.Rename(l.dir, d.Data())); err != nil {
			t.Fatal(err)
		}
		if r := d.Command("journal", "check"); r.Code != 0 {
			t.Errorf("loss %d: exit %d: %s%s", i, r.Code, r.Stdout, r.Stderr)
		}
		kept := waitingTags(t, d)
		for tag := range l.sure {
			if !kept[tag] {
				t.Fatalf("loss %d: the push of %s was answered 2xx and is not in the journal", i, tag)
			}
		}
		t.Logf("loss %d: %d pushes were answered, %d are in the journal", i, len(l.sure), len(kept))
		if i < len(losses)-1 {
			continue
		}
		for tag, g := range l.sure {
			w.push("team/app", g, tag)
		}
		w.reg["us"].Start()
		d.Start()
		for tag, g := range l.sure {
			harness.WaitFor(t, "what was answered to arrive", soon, func(ctx context.Context) error {
				return w.us.Has(ctx, "team/app", tag, g, false)
			})
		}
		if findings, err := d.Findings(t.Context()); err != nil || len(findings) > 0 {
			t.Errorf("findings %+v, %v", findings, err)
		}
	}
}

// waitingTags are the tags of all jobs in the journal of a daemon that does not run.
func waitingTags(t *testing.T, d *harness.Daemon) map[string]bool {
	t.Helper()
	tags := map[string]bool{}
	for after := ""; ; {
		args := []string{"jobs", "list", "--output", "json", "--limit", "1000"}
		if after != "" {
			args = append(args, "--after", after)
		}
		r := d.Command(args...)
		var page struct {
			Jobs []harness.Job
			Next string
		}
		if err := json.Unmarshal([]byte(r.Stdout), &page); err != nil || r.Code != 0 {
			t.Fatalf("jobs list: exit %d: %v: %s", r.Code, err, r.Stderr)
		}
		for _, j := range page.Jobs {
			tags[j.Tag] = true
		}
		if after = page.Next; after == "" {
			return tags
		}
	}
}

// copyJournal copies what a journal has on disk; without shared, its index of
// shared memory is lost.
func copyJournal(t *testing.T, from, to string, shared bool) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	suffixes := []string{"", "-wal"}
	if shared {
		suffixes = append(suffixes, "-shm")
	}
	for _, suffix := range suffixes {
		raw, err := os.ReadFile(filepath.Join(from, "journal.db"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, "journal.db"+suffix), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
