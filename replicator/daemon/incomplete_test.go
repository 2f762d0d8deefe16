package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// TestAnIncompleteTagThatIsGone: a finding of a tag that the source listed and
// had not whole ends once the tag is no longer listed, by a sweep that saw all
// of the source; not while it is there, nor where nobody looks for it.
func TestAnIncompleteTagThatIsGone(t *testing.T) {
	image := ocitest.Image("lost", 2)
	for name, lose := range map[string]func(eu *site){
		"its manifest": func(eu *site) { eu.Remove(app, image.Digest()) },
		"a layer":      func(eu *site) { eu.Remove(app, image.Blobs[1].Desc.Digest) },
	} {
		t.Run(name, func(t *testing.T) {
			routes := swept(func(r *plan.Route) { r.Sweep, r.Rename = time.Minute, "dr/{repository}" })
			in(t, routes, func(w *world) {
				eu := w.sites["eu"]
				eu.Push(app, "kept", ocitest.Image("kept", 1))
				w.start()
				w.firstPass()
				eu.Push(app, "v1", image)
				lose(eu)
				swap := func(fingerprint string) {
					if err := w.Swap(context.Background(), w.state(w.routes, fingerprint), "test"); err != nil {
						t.Fatal(err)
					}
				}
				open := func() (ids []string) {
					for _, f := range w.found(replicator.FindingSourceIncomplete) {
						if !f.Acknowledged {
							ids = append(ids, f.ID)
						}
					}
					return ids
				}
				w.until("it is told", func() bool { return len(open()) > 0 })
				time.Sleep(5 * time.Minute)
				if len(open()) == 0 {
					t.Fatalf("closed while the tag is listed\n%s", w.describe())
				}

				w.routes[0].Tags.Exclude = []string{"v*"}
				swap("2")
				eu.SetTag(app, "v1", "")
				time.Sleep(5 * time.Minute)
				if len(open()) == 0 {
					t.Fatalf("closed by a route that does not look for it\n%s", w.describe())
				}

				w.routes[0].Tags.Exclude = nil
				swap("3")
				w.until("it is closed", func() bool { return len(open()) == 0 })
				if n := len(w.found(replicator.FindingSourceIncomplete)); n == 0 {
					t.Error("it is forgotten")
				}
				w.proven("us", "dr/"+app, "kept", ocitest.Image("kept", 1))
			}, idle())
		})
	}
}
