package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// filled makes a world whose daemon has ended and left a journal with waiting
// jobs, proven tags, and the destination down.
func filled(t *testing.T, jobs int) *world {
	t.Helper()
	w := build(t, setup{silent: true, exact: true})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	w.Start()
	w.postPush("team/app", "v1", img)
	harness.WaitHas(t, w.us, "team/app", "v1", img, time.Minute)
	w.WaitSettled(soon)
	w.reg["us"].Stop()
	for i, g := range w.content.Variants(jobs) {
		w.postPush("team/app", fmt.Sprintf("w%d", i), g)
	}
	if code := w.Terminate(time.Minute); code != 0 {
		t.Fatalf("exit %d", code)
	}
	return w
}

func (w *world) postPush(repository, tag string, g *harness.Graph) {
	w.t.Helper()
	body := harness.PushEvent(w.reg["eu"].Addr, repository, tag, g, time.Now())
	if code, answer := w.Post(w.t.Context(), "eu", body); code != http.StatusAccepted {
		w.t.Fatalf("webhook: %d %s", code, answer)
	}
}

// TestADamagedJournal: refused at start with what to do, rebuilt, and after one
// sweep all is proven again.
func TestADamagedJournal(t *testing.T) {
	w := filled(t, 300)
	path := filepath.Join(w.Data(), "journal.db")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 5; page < len(content)/4096; page += 9 {
		clear(content[page*4096 : (page+1)*4096])
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"serve"}, {"sync"}, {"journal", "check"}} {
		r := w.Command(command...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "twinport journal rebuild") {
			t.Errorf("%v: exit %d, %s", command, r.Code, r.Stderr)
		}
	}
	r := w.Command("journal", "rebuild")
	t.Logf("%s", r.Stdout)
	if r.Code != 0 || !strings.Contains(r.Stdout, "journal.db.broken-") {
		t.Fatalf("rebuild: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := w.Command("journal", "check"); r.Code != 0 {
		t.Errorf("check: exit %d: %s", r.Code, r.Stdout)
	}
	w.reg["us"].Start()
	if r := w.Command("sync", "--output", "json"); r.Code != 0 && !strings.Contains(r.Stdout, "copied") {
		t.Errorf("sync: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.Start()
	if r := w.Command("verify"); r.Code != 0 {
		t.Errorf("verify: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// TestRebuildIsKilled: killed at any moment, rebuilding leaves a journal that
// opens and has every job.
func TestRebuildIsKilled(t *testing.T) {
	const jobs = 400
	w := filled(t, jobs)
	binary, err := harness.Binary(harness.Twinport)
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	took := w.Command("journal", "rebuild", "--force").Took
	for round := range scaled(15, 4) {
		cmd := exec.CommandContext(t.Context(), binary, "journal", "rebuild", "--force", "--config", w.ConfigPath())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			whole++
		case <-time.After(time.Duration(rand.Int64N(int64(took * 3 / 2)))):
			_ = cmd.Process.Kill()
			<-ended
		}
		if r := w.Command("jobs", "retry", "--all"); r.Code != 0 { // opens it as serve does
			t.Fatalf("round %d: exit %d: %s", round, r.Code, r.Stderr)
		}
		if r := w.Command("journal", "check"); r.Code != 0 {
			t.Fatalf("round %d: check: exit %d: %s%s", round, r.Code, r.Stdout, r.Stderr)
		}
	}
	t.Logf("%d ran to their ends", whole)
	w.Start()
	status := w.WaitStatus("prod", "us", "the jobs", soon, func(r harness.RouteStatus) bool { return r.Waiting+r.Running+r.Failed+r.Refused >= 1 })
	if n := status.Waiting + status.Running + status.Failed + status.Refused; n != jobs {
		t.Errorf("%d jobs of %d", n, jobs)
	}
}
