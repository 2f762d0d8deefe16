package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// A route under another name keeps what was proven, if it does the same; by a
// reload, or by a restart with another config.
func TestARenamedRoute(t *testing.T) {
	renamed := func(change func(*plan.Route)) []plan.Route {
		return with(route("production", "eu", "us"), func(r *plan.Route) {
			r.Sweep = 24 * time.Hour
			change(r)
		})
	}
	for name, c := range map[string]struct {
		to     []plan.Route
		proven int64
	}{
		"the same":              {renamed(func(*plan.Route) {}), 12},
		"with another filter":   {renamed(func(r *plan.Route) { r.Repositories.Include = []string{"team/app0"} }), 0},
		"with another rename":   {renamed(func(r *plan.Route) { r.Rename = "dr/{repository}" }), 0},
		"from another registry": {renamed(func(r *plan.Route) { r.From = "ap" }), 0},
		"two that could be it":  {append(renamed(func(*plan.Route) {}), renamed(func(r *plan.Route) { r.Name = "twin" })...), 0},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				in(t, daily(), func(w *world) {
					fill(w.sites["eu"], 3, 4)
					w.start()
					w.until("all is proven", func() bool { return w.status("prod", "us").State == RPOMet && w.status("prod", "us").Proven == 12 })
					w.rest()
					if restart {
						w.halt()
						w.closed()
						w.routes = c.to
						w.open()
					} else {
						w.halt()
						if err := w.Swap(context.Background(), w.state(c.to, "2"), "config"); err != nil {
							t.Fatal(err)
						}
					}
					s := w.status("production", "us")
					if s.Proven != c.proven || (s.State == RPOMet) != (c.proven > 0) {
						t.Errorf("status %s", s)
					}
				}, idle(), having("ap", ocitest.Options{}))
			})
		}
	}
}
