package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// frozenFor is longer than the lease and the deadline of any PUT of a tag.
const frozenFor = 14 * time.Second

// P3: the daemon is frozen inside the PUT of a tag for longer than its lease.
// Whether the PUT takes effect meanwhile or comes late, after the next push was
// proven, the tag names that push within 15 s; an older state that was seen
// after it is a finding.
func TestAFrozenDaemonsLatePutIsCorrected(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a lease's time")
	}
	for name, late := range map[string]bool{"it lands during the freeze": false, "it lands after the next push": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{silent: true})
			pid := w.Process().PID()
			first, older, newer := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
			names := func(what string, d digest.Digest) time.Duration {
				t.Helper()
				began := time.Now()
				harness.WaitFor(t, what, soon, func(ctx context.Context) error {
					got, err := w.us.Digest(ctx, "team/app", "prod")
					if err != nil || got != d {
						return fmt.Errorf("it names %s: %w", got, errors.Join(err, errors.New("not yet")))
					}
					return nil
				})
				return time.Since(began)
			}
			w.push("team/app", first, "prod")
			w.postPush("team/app", "prod", first)
			names("the first push", first.Digest)
			w.WaitSettled(soon)

			pass := w.proxy["us"].Inject(harness.Fault{Times: 1, Hold: true, Match: func(r harness.Request) bool {
				return r.Method == http.MethodPut && r.Class == harness.Tag && r.Digest() == older.Digest
			}})
			w.push("team/app", older, "prod")
			w.postPush("team/app", "prod", older)
			harness.WaitFor(t, "the PUT to be held", soon, func(context.Context) error {
				if w.proxy["us"].Taken() == 0 {
					return errors.New("it has not come")
				}
				return nil
			})
			w.Process().Freeze(t)
			frozen := time.NewTimer(frozenFor)
			w.push("team/app", newer, "prod")
			var took time.Duration
			if late {
				<-frozen.C
				w.Process().Thaw(t)
				w.postPush("team/app", "prod", newer)
				names("the next push", newer.Digest)
				w.WaitSettled(soon)
				pass()
				began := time.Now()
				// It is told when the PUT has ended; the older state may have been
				// too short to be seen from here.
				w.WaitFinding(soon, "team/app", "prod", "regressed")
				names("the late PUT to be corrected", newer.Digest)
				took = time.Since(began)
			} else {
				pass()
				names("the held PUT to land", older.Digest)
				<-frozen.C
				w.Process().Thaw(t)
				took = names("the late PUT to be corrected", newer.Digest) // told by nobody
			}
			t.Logf("corrected after %s", took)
			if took > 2*takeover {
				t.Errorf("corrected after %s, over %s", took, takeover)
			}
			w.WaitSettled(soon)
			names("the last push", newer.Digest)
			w.unharmed(pid)
			w.noFindings("regressed")
		})
	}
}
