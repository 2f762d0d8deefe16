package integration

import (
	"context"
	"fmt"
	"testing"

	"github.com/twinport/twinport/integration/harness"
)

// A registry that tells of nothing and has no secret, with the sweep hours
// away: the poll finds new tags and moved ones, also what was pushed while no
// daemon ran, and reads nothing it does not copy.
func TestAPollFindsPushesThatNothingTells(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sweep string
		rests bool // what is there at the start is copied
	}{
		"sweep hours away": {"sweep: 6h", true},
		"sweep never":      {"sweep: never", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := build(t, setup{silent: true, route: []string{c.sweep}})
			w.Config.Registries[0].Lines = append(w.Config.Registries[0].Lines, "events: {poll: 1s}")
			w.WriteConfig()
			images := w.content.Variants(6)
			w.push("team/app", images[0], "v0")
			w.Start()
			if c.rests {
				harness.WaitHas(t, w.us, "team/app", "v0", images[0], soon)
			} else {
				w.polled(2)
			}
			w.push("team/app", images[1], "v1")
			w.push("team/new", images[2], "v1")
			harness.WaitHas(t, w.us, "team/app", "v1", images[1], soon)
			harness.WaitHas(t, w.us, "team/new", "v1", images[2], soon)
			w.push("team/app", images[3], "v1")
			harness.WaitHas(t, w.us, "team/app", "v1", images[3], soon)
			w.WaitSettled(soon)

			w.proxy["eu"].Reset()
			w.polled(5)
			for what, n := range w.proxy["eu"].Counts() {
				switch what {
				case "GET tag", "GET manifest", "GET blob":
					t.Errorf("%d %s of polls that found nothing", n, what)
				}
			}
			w.noFindings()

			w.Kill()
			w.push("team/app", images[4], "v1")
			w.Start()
			harness.WaitHas(t, w.us, "team/app", "v1", images[4], soon)
			w.WaitSettled(soon)
			w.noFindings()
		})
	}
}

// polled waits for some more polls.
func (w *world) polled(n int) {
	w.t.Helper()
	lists := func() int { return w.proxy["eu"].Counts()["GET tags"] }
	want := lists() + n
	harness.WaitFor(w.t, fmt.Sprintf("%d polls", n), soon, func(context.Context) error {
		if got := lists(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
}
