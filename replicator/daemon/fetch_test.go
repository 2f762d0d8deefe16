package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
)

// A heap is a queue that hands out everything until it is deleted.
type heap struct {
	mu       sync.Mutex
	messages []replicator.Message
	fail     error
	deleted  []string
	changed  chan struct{}
	// onDelete runs before a deletion: what is committed by then is seen.
	onDelete func()
}

func (h *heap) Receive(ctx context.Context) ([]replicator.Message, error) {
	for {
		h.mu.Lock()
		list, err, changed := slices.Clone(h.messages), h.fail, h.changed
		for i := range h.messages {
			h.messages[i].Again = true
		}
		h.mu.Unlock()
		if err != nil || len(list) > 0 && slices.ContainsFunc(list, func(m replicator.Message) bool { return !m.Again }) {
			return list, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *heap) Delete(_ context.Context, handles []string) error {
	if h.onDelete != nil {
		h.onDelete()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deleted = append(h.deleted, handles...)
	h.messages = slices.DeleteFunc(h.messages, func(m replicator.Message) bool { return slices.Contains(handles, m.Handle) })
	return nil
}

func (h *heap) put(m replicator.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, m)
	close(h.changed)
	h.changed = make(chan struct{})
}

// named is a registry that has an identity and is asked for nothing.
type named struct {
	oci.Registry
	id string
}

func (n named) Identity() string { return n.id }

// fetching gives a daemon with a queue at the route's source.
func fetching(t *testing.T, h *heap) (*Daemon, *journal.Journal) {
	t.Helper()
	h.changed = make(chan struct{})
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, j.Close()); err != nil {
			t.Error(err)
		}
	})
	rules, err := plan.New([]plan.Route{{Name: "prod", From: "eu", To: []string{"us"}}},
		[]plan.Registry{{Name: "eu", Identity: "ecr://1.eu"}, {Name: "us", Identity: "ecr://1.us"}})
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Journal: j}, &State{Rules: rules, Fed: map[string]bool{}, Fingerprint: "1", Registries: map[string]*Registry{
		"eu": {Name: "eu", Client: named{id: "ecr://1.eu"}, Queue: h, Prefix: "team"}, "us": {Name: "us", Client: named{id: "ecr://1.us"}},
	}})
	if err := d.Configure(t.Context(), "config"); err != nil {
		t.Fatal(err)
	}
	fctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.fetch(fctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { end(); <-done })
	return d, j
}

// eventually asks until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

func push(n int) replicator.Message {
	return replicator.Message{Handle: fmt.Sprintf("h%d", n), Told: replicator.Decoded{Events: []replicator.Event{{
		Action: replicator.Push, Repository: "team/app", Tag: fmt.Sprintf("v%d", n),
		Digest: "sha256:7ad9ba3f6e6ec242686cb59a2e4628b3ea886f8d1e74715d922b983cd19e8601",
	}}}}
}

func TestFetchDeletesWhatIsCommitted(t *testing.T) {
	h := &heap{}
	var j *journal.Journal
	var mu sync.Mutex
	h.onDelete = func() {
		mu.Lock()
		defer mu.Unlock()
		jobs, _, err := j.Jobs(t.Context(), journal.JobFilter{Repository: "app"})
		if err != nil || len(jobs) == 0 {
			t.Errorf("deleted before the commit: %v, %v", jobs, err)
		}
	}
	mu.Lock()
	_, j = fetching(t, h)
	mu.Unlock()
	for n := range 3 {
		h.put(push(n))
	}
	outside := push(9)
	outside.Told.Events[0].Repository = "other/app"
	h.put(outside)
	eventually(t, "all are taken away", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.messages) == 0 })
	jobs, _, err := j.Jobs(t.Context(), journal.JobFilter{})
	if err != nil || len(jobs) != 3 || jobs[0].Lane != replicator.LaneWebhook {
		t.Errorf("jobs %+v, %v; want one for each push inside the prefix", jobs, err)
	}
}

func TestFetchUnusable(t *testing.T) {
	for _, setsAside := range []bool{false, true} {
		h := &heap{}
		_, j := fetching(t, h)
		poison := replicator.Message{Handle: "poison", SetsAside: setsAside}
		poison.Told.Refuse("no event")
		h.put(poison)
		h.put(push(1))
		eventually(t, "the push is taken away", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return slices.Contains(h.deleted, "h1") })
		eventually(t, "the finding", func() bool {
			found, _, err := j.Findings(t.Context(), journal.FindingFilter{})
			return err == nil && len(found) == 1 && found[0].Kind == replicator.FindingUnusableEvent && found[0].Registry == "eu"
		})
		if !setsAside {
			eventually(t, "the poison is taken away", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return slices.Contains(h.deleted, "poison") })
			continue
		}
		h.mu.Lock()
		if slices.Contains(h.deleted, "poison") {
			t.Error("what the queue sets aside is deleted")
		}
		h.mu.Unlock()
	}
}

func TestFetchDenied(t *testing.T) {
	h := &heap{fail: &oci.RegistryError{Registry: "eu", Operation: "ReceiveMessage", Kind: oci.ErrDenied, Hint: "allow the IAM action sqs:ReceiveMessage"}}
	_, j := fetching(t, h)
	eventually(t, "the finding", func() bool {
		found, _, err := j.Findings(t.Context(), journal.FindingFilter{})
		return err == nil && len(found) == 1 && found[0].Kind == replicator.FindingConfig && found[0].Hint == "allow the IAM action sqs:ReceiveMessage"
	})
}
