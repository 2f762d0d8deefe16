package daemon

import (
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// slow is a registry whose replicas take their time.
type slow struct{ oci.Registry }

func (slow) Settles() time.Duration { return 10 * time.Minute }

// TestSettles: a tag that is absent right after a push is waited for as long as
// its registry may need, and no longer.
func TestSettles(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		client  oci.Registry
		longest time.Duration
	}{"any": {nil, settleFor}, "slow": {slow{}, 10 * time.Minute}} {
		at := now
		r := &run{
			Daemon:   &Daemon{now: func() time.Time { return at }},
			state:    &State{Registries: map[string]*Registry{"eu": {Client: c.client}}},
			outcomes: make(map[string]*journal.Outcome),
		}
		j := replicator.Job{ID: "1", Source: replicator.Place{Registry: "eu"}, Lane: replicator.LaneWebhook}
		looks := 0
		for ; r.early(j, "absent"); looks++ {
			next := r.outcomes[j.ID].NextAttempt
			if wait := next.Sub(at); wait <= 0 || wait > settleAgain {
				t.Fatalf("%s: waits %s", name, wait)
			}
			at = next
		}
		if waited := at.Sub(now); waited < c.longest || waited > c.longest+settleAgain || looks > 50 {
			t.Errorf("%s: %d looks in %s, want %s", name, looks, waited, c.longest)
		}
		j.ID, j.Lane = "2", replicator.LaneSweep
		if r.early(j, "absent") {
			t.Errorf("%s: a sweep's job waits", name)
		}
	}
}
