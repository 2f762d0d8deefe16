package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// An accepted is a push whose webhook was answered 2xx.
type accepted struct {
	tag   string
	image *harness.Graph
}

// hook posts the webhook of a push and gives status, Retry-After and answer.
func (w *world) hook(ctx context.Context, repository, tag string, g *harness.Graph) (status int, again, answer string) {
	w.t.Helper()
	body := harness.PushEvent(w.reg["eu"].Addr, repository, tag, g, time.Now())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.HookURL("eu"), bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+harness.Secret("eu"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err.Error()
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return resp.StatusCode, resp.Header.Get("Retry-After"), string(raw)
}

// refuses has webhooks sent until they are answered 503, each of a push of its
// own, and gives those that were accepted before.
func (w *world) refuses(images []*harness.Graph) (taken []accepted) {
	w.t.Helper()
	next := 0
	harness.WaitFor(w.t, "a webhook to be refused", soon, func(ctx context.Context) error {
		push := accepted{fmt.Sprint("t", next), images[next%len(images)]}
		next++
		w.push("team/app", push.image, push.tag)
		status, again, answer := w.hook(ctx, "team/app", push.tag, push.image)
		switch {
		case status == http.StatusServiceUnavailable:
			if seconds, err := strconv.Atoi(again); err != nil || seconds < 1 {
				w.t.Errorf("refused with Retry-After %q", again)
			}
			return nil
		case status == http.StatusAccepted:
			taken = append(taken, push)
		}
		return fmt.Errorf("webhook %d: %d %s", next, status, answer)
	})
	return taken
}

// arrived waits until all that was accepted is proven.
func (w *world) arrived(all []accepted) {
	w.t.Helper()
	for _, push := range all {
		harness.WaitHas(w.t, w.us, "team/app", push.tag, push.image, soon)
	}
	w.WaitSettled(soon)
}

// unharmed checks what no fault may change: the process lives on, and nothing
// secret is in its log.
func (w *world) unharmed(pid int) {
	w.t.Helper()
	if !w.Process().Alive() || w.Process().PID() != pid {
		w.t.Error("the daemon has ended")
	}
	for name := range w.reg {
		if strings.Contains(w.Log(), harness.Secret(name)) {
			w.t.Errorf("the log has the webhook secret of %s", name)
		}
	}
}

// held holds the first request that matches until let go.
func (w *world) held(at string, match func(harness.Request) bool) (arrived <-chan struct{}, letGo func()) {
	here, pass := make(chan struct{}), make(chan struct{})
	var first, last sync.Once
	w.proxy[at].Before(func(r harness.Request) {
		if !match(r) {
			return
		}
		mine := false
		first.Do(func() { mine = true })
		if mine {
			close(here)
			<-pass
		}
	})
	letGo = func() { last.Do(func() { close(pass) }) }
	w.t.Cleanup(letGo)
	return here, letGo
}

// isReady asks /readyz until it answers so: nil for ready, or the words given.
func (w *world) isReady(words ...string) {
	w.t.Helper()
	harness.WaitFor(w.t, fmt.Sprintf("/readyz to say %q", words), soon, func(ctx context.Context) error {
		err := w.Ready(ctx)
		if len(words) == 0 {
			return err
		}
		if err == nil {
			return errors.New("it is ready")
		}
		for _, word := range words {
			if strings.Contains(err.Error(), word) {
				return nil
			}
		}
		return err
	})
}

// P1: the data directory's disk is full: webhooks are answered 503 with
// Retry-After, /readyz says why, the copy under way goes on; and when there is
// room, all that was accepted is proven without anybody's help.
func TestADiskThatIsFullRefusesWebhooksAndHeals(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, volume: 24 << 20})
	w.Start()
	pid := w.Process().PID()
	first := w.content.Image(harness.ImageSpec{})
	w.push("team/app", first, "first")
	w.postPush("team/app", "first", first)
	harness.WaitHas(t, w.us, "team/app", "first", first, soon)

	uploading, goOn := w.held("us", harness.Is(http.MethodPut, harness.Upload))
	copied := w.content.Image(harness.ImageSpec{})
	w.push("team/app", copied, "copied")
	w.postPush("team/app", "copied", copied)
	<-uploading
	w.Fill()
	taken := w.refuses(w.content.Variants(40))
	w.isReady("no space is left", "disk I/O error")
	goOn()
	harness.WaitFor(t, "the copy under way to go on", soon, func(ctx context.Context) error {
		for _, blob := range copied.Blobs {
			if _, err := w.us.BlobSize(ctx, "team/app", blob.Digest); err != nil {
				return err
			}
		}
		return nil
	})
	if _, err := w.Status(t.Context()); err != nil {
		t.Errorf("status on a full disk: %v", err)
	}
	w.unharmed(pid)
	w.MakeRoom()
	w.isReady()
	w.arrived(append(taken, accepted{"copied", copied}))
	later := w.content.Image(harness.ImageSpec{})
	w.push("team/app", later, "later")
	w.postPush("team/app", "later", later)
	w.arrived([]accepted{{"later", later}})
	w.unharmed(pid)
	w.noFindings()
	t.Logf("%d webhooks were accepted by a full disk", len(taken))
}

// P9: a spool that fills its disk holds up the one destination that needs it:
// the others get the image, of a layer greater than the memory for it, the
// journal on the same disk takes every webhook, and the slow one has it later.
func TestASpoolThatIsFullHoldsUpItsDestinationAlone(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, volume: 40 << 20, to: []string{"us", "ap"}})
	if !w.Volume.Mounted() {
		w.Config.Lines = append(w.Config.Lines, "spool: {max: 30MiB}")
		w.WriteConfig()
	}
	w.Start()
	pid := w.Process().PID()
	layer := w.content.BigBlob(160 << 20)
	big := w.content.ImageOf(layer)
	small := w.content.Variants(30)
	w.push("team/app", big, "big")
	w.push("team/app", small[0])
	goOn := w.proxy["ap"].Inject(harness.Fault{Times: 1, Stall: 1 << 20, Match: func(r harness.Request) bool {
		return r.Method == http.MethodPut && r.Class == harness.Upload && strings.Contains(r.Query.Get("digest"), layer.Digest.Encoded())
	}})
	w.postPush("team/app", "big", big)
	var took []accepted
	for i, g := range small {
		push := accepted{fmt.Sprint("t", i), g}
		w.push("team/app", g, push.tag)
		if status, _, answer := w.hook(t.Context(), "team/app", push.tag, g); status != http.StatusAccepted {
			t.Errorf("webhook %d beside a full spool: %d %s", i, status, answer)
		}
		took = append(took, push)
	}
	harness.WaitHas(t, w.us, "team/app", "big", big, soon)
	for _, push := range took {
		for _, c := range []*harness.Client{w.us, w.reg["ap"].Client()} {
			harness.WaitHas(t, c, "team/app", push.tag, push.image, soon)
		}
	}
	w.isReady()
	goOn()
	harness.WaitFor(t, "the slow destination to drop out", soon, func(context.Context) error {
		if !strings.Contains(w.Log(), "the spool has no room") {
			return errors.New("it has not")
		}
		return nil
	})
	harness.WaitHas(t, w.reg["ap"].Client(), "team/app", "big", big, soon)
	w.WaitSettled(soon)
	w.unharmed(pid)
	w.noFindings()
}

// A data directory that is read-only: the daemon does not start, and says why.
func TestADataDirectoryThatIsReadOnlyIsRefused(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, volume: 24 << 20})
	w.Start()
	if code := w.Terminate(time.Minute); code != 0 {
		t.Fatalf("exit %d", code)
	}
	if !w.Volume.ReadOnly() {
		w.Under = []string{"prlimit", "--fsize=0"}
	}
	for _, command := range []string{"serve", "sync"} {
		r := w.Command(command)
		if r.Code != 1 || !strings.Contains(r.Stderr, "data directory") || strings.Contains(r.Stderr, "panic") {
			t.Errorf("%s: exit %d: %s%s", command, r.Code, r.Stdout, r.Stderr)
		}
		t.Logf("%s: %s", command, r.Stderr)
	}
}

// P1: every write of the daemon fails from one moment on, as on a disk that
// the kernel has made read-only: webhooks get 503, what is copied is not done
// twice, and all goes on once writes succeed.
func TestADataDirectoryThatBecomesReadOnly(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true})
	w.Start()
	pid := w.Process().PID()
	moved, goOn := w.held("us", harness.Is(http.MethodPut, harness.Tag))
	copied := w.content.Image(harness.ImageSpec{})
	w.push("team/app", copied, "copied")
	w.postPush("team/app", "copied", copied)
	<-moved
	w.LimitFiles(0)
	taken := w.refuses(w.content.Variants(10))
	if len(taken) > 0 {
		t.Errorf("%d webhooks were accepted, and nothing can be written", len(taken))
	}
	w.isReady("disk I/O error")
	goOn()
	harness.WaitHas(t, w.us, "team/app", "copied", copied, soon)
	w.unharmed(pid)
	w.LimitFiles(-1)
	w.isReady()
	w.arrived([]accepted{{"copied", copied}})
	if n := len(w.proxy["us"].TagWrites()); n != 1 {
		t.Errorf("the tag was moved %d times", n)
	}
	later := w.content.Image(harness.ImageSpec{})
	w.push("team/app", later, "later")
	w.postPush("team/app", "later", later)
	w.arrived([]accepted{{"later", later}})
	w.unharmed(pid)
	w.noFindings()
}
