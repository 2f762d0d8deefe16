package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// P3: the same tag pushed 50 times as fast as possible, its events shuffled,
// doubled and late: the destination ends at the last push and never shows an
// older state after a newer one. A rollback is a push.
func TestTheLastPushWinsWhateverTheOrderOfEvents(t *testing.T) {
	t.Parallel()
	w := start(t, setup{relays: true})
	pushes := w.content.Variants(100)
	watch := harness.WatchTag(t, w.us, "team/app", "prod", nil)
	relay := w.relay["eu"]

	relay.Hold()
	for _, g := range pushes[:50] {
		w.push("team/app", g, "prod")
	}
	harness.WaitFor(t, "50 notifications", soon, func(context.Context) error {
		if n := relay.Pushes(); n < 50 {
			return fmt.Errorf("%d came", n)
		}
		return nil
	})
	relay.Release(t, 1, true, true)
	harness.WaitHas(t, w.us, "team/app", "prod", pushes[49], soon)

	// Again while they come, each late by its own, and copies begin meanwhile.
	relay.Delay(func() time.Duration { return time.Duration(rand.IntN(400)) * time.Millisecond })
	pace := time.NewTicker(15 * time.Millisecond)
	defer pace.Stop()
	for _, g := range pushes[50:] {
		w.push("team/app", g, "prod")
		<-pace.C
	}
	harness.WaitHas(t, w.us, "team/app", "prod", pushes[99], soon)
	w.WaitSettled(soon)
	relay.Delay(nil)

	states, err := watch.Stop()
	if err != nil {
		t.Error(err)
	}
	if err := harness.InOrder(states, pushes); err != nil {
		t.Errorf("seen by the poller: %v", err)
	}
	var written []digest.Digest
	for _, r := range w.proxy["us"].TagWrites() {
		written = append(written, r.Digest())
	}
	if err := harness.InOrder(written, pushes); err != nil {
		t.Errorf("written: %v", err)
	}
	t.Logf("%d states seen, %d writes for 100 pushes", len(states), len(written))

	w.push("team/app", pushes[0], "prod")
	harness.WaitHas(t, w.us, "team/app", "prod", pushes[0], soon)
	w.WaitSettled(soon)
	w.noFindings()
	r := w.Command("history", "eu/team/app:prod", "--output", "json")
	if r.Code != 0 {
		t.Errorf("history ended with %d: %s", r.Code, r.Stderr)
	}
}
