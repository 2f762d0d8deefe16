package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// The wall clock is stepped by a day, forward and back, while the daemon runs
// and while it does not: what waited for its next attempt and what is pushed
// afterwards is proven as soon as ever, sweeps go on, and nothing is told that
// is not so.
func TestAClockThatIsSteppedHoldsNothingUp(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	w := build(t, setup{silent: true, clock: true, exact: true, route: []string{"sweep: 3s", "rpo: 10m"}})
	w.Start()
	image := func(tag string) *harness.Graph {
		g := w.content.Image(harness.ImageSpec{})
		w.push("team/app", g, tag)
		return g
	}
	tell := func(tag string, g *harness.Graph) {
		t.Helper()
		body := harness.PushEvent(w.reg["eu"].Addr, "team/app", tag, g, w.Clock.Now())
		if code, answer := w.Post(t.Context(), "eu", body); code != http.StatusAccepted {
			t.Fatalf("webhook: %d %s", code, answer)
		}
	}
	for i, c := range []struct {
		name    string
		by      time.Duration
		restart bool
	}{
		{"a day back while it runs", -day, false},
		{"a day forward while it runs", day, false},
		{"a day back while it does not run", -day, true},
		{"a day forward while it does not run", day, true},
	} {
		before, waiting, after, untold := fmt.Sprint("before", i), fmt.Sprint("waiting", i), fmt.Sprint("after", i), fmt.Sprint("untold", i)
		g := image(before)
		tell(before, g)
		harness.WaitHas(t, w.us, "team/app", before, g, soon)
		w.WaitSettled(soon)

		// It waits for its next attempt when the clock is stepped.
		mend := w.proxy["us"].Inject(harness.Fault{Status: http.StatusInternalServerError, Match: func(r harness.Request) bool {
			return r.Method == http.MethodPost
		}})
		was := w.proxy["us"].Taken()
		held := image(waiting)
		tell(waiting, held)
		w.WaitStatus("prod", "us", "a job that waits", soon, func(r harness.RouteStatus) bool {
			return r.Waiting == 1 && w.proxy["us"].Taken() > was
		})
		if c.restart {
			if code := w.Terminate(time.Minute); code != 0 {
				t.Errorf("exit %d", code)
			}
		}
		if err := w.Clock.Step(c.by); err != nil {
			t.Fatal(err)
		}
		stepped := time.Now()
		if c.restart {
			w.Start()
		}
		mend()
		next := image(after)
		tell(after, next)
		harness.WaitHas(t, w.us, "team/app", after, next, soon)
		t.Logf("%s: a push after it arrived %s later", c.name, time.Since(stepped))
		harness.WaitHas(t, w.us, "team/app", waiting, held, soon)
		t.Logf("%s: what waited arrived %s later", c.name, time.Since(stepped))
		found := image(untold)
		harness.WaitHas(t, w.us, "team/app", untold, found, soon)
		t.Logf("%s: a sweep brought what was told by nobody %s later", c.name, time.Since(stepped))
		w.WaitStatus("prod", "us", "green", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" })
	}
	if strings.Contains(w.Log(), "gave up") {
		t.Error("a job was given up")
	}
	w.noFindings("slow-sweep")
}
