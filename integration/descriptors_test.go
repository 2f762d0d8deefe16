package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// P1, P9: the daemon may open no more than 56 files, while hundreds of
// connections hold on and many copies want to run: it refuses connections, not
// webhooks it has accepted, and all of those are proven. When the flood is over
// it is as before.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true})
	w.Under = []string{"sh", "-c", `ulimit -n 56 && exec "$0" "$@"`}
	w.Start()
	pid := w.Process().PID()
	info, err := w.Info()
	if err != nil {
		t.Fatal(err)
	}
	const pushes = 16
	images := make([]*harness.Graph, pushes)
	for i := range images {
		images[i] = w.content.Image(harness.ImageSpec{Layers: 2})
		w.push(fmt.Sprint("team/app", i%8), images[i], fmt.Sprint("v", i))
	}
	t.Run("flood", func(t *testing.T) {
		held(t, info.Listen, "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nX-Slow: ", 200)
		held(t, info.Admin, "", 200)
		for i, g := range images {
			harness.WaitFor(t, "a webhook to be accepted", soon, func(ctx context.Context) error {
				code, answer := w.Post(ctx, "eu", harness.PushEvent(w.reg["eu"].Addr, fmt.Sprint("team/app", i%8), fmt.Sprint("v", i), g, time.Now()))
				if code != http.StatusAccepted {
					return fmt.Errorf("webhook %d: %d %s", i, code, answer)
				}
				return nil
			})
		}
		harness.WaitForEach(t, "all that was accepted", 2*time.Minute, pushes, func(ctx context.Context, i int) error {
			return w.us.Has(ctx, fmt.Sprint("team/app", i%8), fmt.Sprint("v", i), images[i], true)
		})
	})
	w.isReady()
	w.WaitSettled(2 * time.Minute)
	if !strings.Contains(w.Log(), "too many connections") {
		t.Error("nothing was said of connections that were closed")
	}
	later := w.content.Image(harness.ImageSpec{})
	w.push("team/app", later, "later")
	w.postPush("team/app", "later", later)
	w.arrived([]accepted{{"later", later}})
	w.unharmed(pid)
	w.noFindings()
}
