package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// planned shows a plan's actions about some tags, `delete us/team/app:v1`.
func (w *world) planned(tags ...string) (lines []string, reasons map[string]string) {
	w.Helper()
	reasons = make(map[string]string)
	_, err := w.Plan(context.Background(), []string{"prod"}, func(a Action) error {
		if slices.Contains(tags, a.Tag) || a.Action == "delete" {
			lines = append(lines, fmt.Sprintf("%s %s/%s:%s", a.Action, a.Destination, a.DestinationRepository, a.Tag))
			reasons[a.Tag] = a.Reason
			if a.Route != "prod" || a.Repository != app || a.Digest == "" {
				w.Errorf("%+v", a)
			}
		}
		return nil
	})
	if err != nil {
		w.Error(err)
	}
	slices.Sort(lines)
	return lines, reasons
}

// TestPlannedDeletions: a plan tells what would go now as delete, what waits or
// is kept as skip, and changes nothing.
func TestPlannedDeletions(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2", "v3")
		w.untag("v1", "v2")
		lines, reasons := w.planned("v1", "v2")
		if strings.Join(lines, ",") != "skip us/team/app:v1,skip us/team/app:v2" || !strings.Contains(reasons["v1"], "for 72h more") {
			t.Errorf("%v %v", lines, reasons)
		}
		w.look()
		w.pass(24*time.Hour - 5*time.Second)
		if _, reasons := w.planned("v1"); !strings.Contains(reasons["v1"], "gone at eu since") || !strings.Contains(reasons["v1"], "for 48h more") {
			t.Errorf("%v", reasons)
		}
		w.look()
		w.sites["us"].SetTag(app, "v2", ocitest.Image("v3", 1).Digest()) // somebody moved it
		w.pass(24 * time.Hour)
		w.look()
		w.pass(24 * time.Hour)
		for range 2 { // planning passes no time
			lines, reasons = w.planned("v1", "v2", "v3")
			if strings.Join(lines, ",") != "delete us/team/app:v1,skip us/team/app:v2" ||
				!strings.Contains(reasons["v1"], "longer than the grace of 72h") || !strings.Contains(reasons["v2"], "somebody else") {
				t.Errorf("%v %v", lines, reasons)
			}
		}
		if w.deletions("us") != 0 || len(w.allFindings()) != 0 {
			t.Errorf("a plan has changed something\n%s", w.describe())
		}
		w.sites["eu"].Push(app, "v1", ocitest.Image("v1", 1))
		if lines, _ := w.planned("v1", "v2"); slices.Contains(lines, "delete us/team/app:v1") {
			t.Errorf("what is back: %v", lines)
		}
		w.untag("v1")
		w.look()
		w.has("us", "v2 v3", "v1", "v2", "v3")
	})
}

// TestPlannedDeletionsOverTheCap are none.
func TestPlannedDeletionsOverTheCap(t *testing.T) {
	in(t, capped(0.05), func(w *world) {
		w.tags("v1", "v2", "v3")
		w.untag("v1", "v2")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		lines, reasons := w.planned("v1", "v2")
		if strings.Join(lines, ",") != "skip us/team/app:v1,skip us/team/app:v2" || !strings.Contains(reasons["v1"], "one run deletes 1 at most") {
			t.Errorf("%v %v", lines, reasons)
		}
		w.sites["eu"].RemoveRepository(app)
		if lines, _ := w.planned(); len(lines) != 0 {
			t.Errorf("of an emptied source: %v", lines)
		}
	})
}

// TestPlannedDeletionsThatWereCutOff: what a process that died had begun is
// planned, too, as long as the tag is there; the cap counts it once.
func TestPlannedDeletionsThatWereCutOff(t *testing.T) {
	in(t, capped(0.4), func(w *world) {
		w.tags("v1", "v2", "v3", "v4", "v5")
		w.untag("v1", "v2")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		ctx := context.Background()
		for _, tag := range []string{"v1", "v2"} {
			d, ok, err := w.journal.Departure(ctx, "prod", replicator.Place{Registry: "us", Identity: w.sites["us"].Identity(), Repository: app}, tag)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			if _, err := w.journal.BeginDeletion(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
		w.sites["us"].SetTag(app, "v2", "") // that far it had come
		w.restart()
		lines, reasons := w.planned("v1", "v2")
		if strings.Join(lines, ",") != "delete us/team/app:v1" || !strings.Contains(reasons["v1"], "begun, and interrupted") {
			t.Errorf("%v %v", lines, reasons)
		}
		if w.deletions("us") != 0 {
			t.Error("a plan has removed something")
		}
		w.look()
		w.has("us", "v3 v4 v5", "v1", "v2", "v3", "v4", "v5")
		if lines, _ := w.planned("v1", "v2"); len(lines) != 0 {
			t.Errorf("and then %v", lines)
		}
	})
}

func TestRemaining(t *testing.T) {
	for absent, want := range map[time.Duration]string{
		0: "72h", 24 * time.Hour: "48h", 71 * time.Hour: "1h", 71*time.Hour + 30*time.Minute: "30m", 72*time.Hour - 5*time.Second: "5s",
		100 * time.Hour: "0s", 50*time.Hour + 20*time.Minute: "21h40m",
	} {
		d, grace := absent, 72*time.Hour
		if got := remaining(departureOf(d), grace); got != want {
			t.Errorf("%s of %s: %s, want %s", absent, grace, got, want)
		}
	}
}

func departureOf(absent time.Duration) replicator.Departure {
	return replicator.Departure{Absent: absent}
}
