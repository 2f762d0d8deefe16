package integration

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// A ledger keeps every request that passed a proxy.
type ledger struct {
	mu    sync.Mutex
	rows  []harness.Request
	times []time.Time
}

func keep(p *harness.Proxy) *ledger {
	l := &ledger{}
	p.Before(func(r harness.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rows = append(l.rows, r)
		l.times = append(l.times, time.Now())
	})
	return l
}

// took is how long there were requests.
func (l *ledger) took() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.times) == 0 {
		return 0
	}
	return l.times[len(l.times)-1].Sub(l.times[0])
}

// count is how many requests match; companions' tags count only where asked.
func (l *ledger) count(companions bool, methods string, classes ...harness.Class) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.rows {
		isCompanion := r.Class == harness.Referrer || r.Class == harness.TagList || r.Class == harness.Tag && strings.HasPrefix(r.Reference, "sha256-")
		if isCompanion == companions && strings.Contains(methods, r.Method) && (companions || slices.Contains(classes, r.Class)) {
			n++
		}
	}
	return n
}

func (l *ledger) all() []harness.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.rows)
}

// of are the requests about a repository.
func (l *ledger) of(repository string) []harness.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []harness.Request
	for _, r := range l.rows {
		if r.Repository == repository {
			out = append(out, r)
		}
	}
	return out
}

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, r := range l.rows {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

// A cold copy of an image stays in its budget of requests at both sides.
func TestAColdCopyKeepsItsBudgetOfRequests(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, exact: true})
	const platforms, layers = 3, 4
	img := w.content.MultiArch(harness.ImageSpec{Layers: layers}, "amd64", "arm64", "s390x")
	w.push("team/app", img, "v1")
	w.Start()
	// What each registry can do is asked once by a daemon, with its first image.
	first := w.content.Image(harness.ImageSpec{})
	w.push("team/other", first, "v1")
	if code, answer := w.Post(t.Context(), "eu", harness.PushEvent(w.reg["eu"].Addr, "team/other", "v1", first, time.Now())); code != http.StatusAccepted {
		t.Fatalf("webhook: %d %s", code, answer)
	}
	w.WaitStatus("prod", "us", "the first image", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.Proven == 1 })
	src, dst := keep(w.proxy["eu"]), keep(w.proxy["us"])
	code, answer := w.Post(t.Context(), "eu", harness.PushEvent(w.reg["eu"].Addr, "team/app", "v1", img, time.Now()))
	if code != http.StatusAccepted {
		t.Fatalf("webhook: %d %s", code, answer)
	}
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)

	blobs := platforms * (layers + 1) // a config each
	manifests := platforms + 1
	// What was read more than a second before the tag moves is read again: on a
	// busy machine that is the source's tag and what belongs to the image.
	again := 0
	if src.took() > time.Second {
		again = 1
	}
	check := func(l *ledger, what string, got, limit int) {
		t.Helper()
		if got > limit {
			t.Errorf("%s: %d requests, want at most %d:\n%s", what, got, limit, l)
		}
	}
	check(src, "manifest reads at the source", src.count(false, "GET HEAD", harness.Manifest, harness.Tag), 2+platforms+again)
	check(src, "blob reads at the source", src.count(false, "GET HEAD", harness.BlobOp), blobs)
	check(src, "referrers at the source", src.count(true, "GET HEAD"), 4*(1+again))
	check(dst, "uploads begun", dst.count(false, "POST", harness.Upload), blobs)
	check(dst, "uploads", dst.count(false, "PUT PATCH", harness.Upload), blobs)
	check(dst, "manifest writes", dst.count(false, "PUT", harness.Manifest, harness.Tag), manifests+1)
	check(dst, "proof of blobs", dst.count(false, "GET HEAD", harness.BlobOp), blobs)
	// The proof reads each manifest once; the tag is read before it is moved
	// and once more after.
	check(dst, "reads of manifests and the tag", dst.count(false, "GET HEAD", harness.Manifest, harness.Tag), manifests+2)
}

// A base layer shared by many repositories crosses to a destination once.
func TestASharedLayerCrossesOnce(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, exact: true, route: []string{"sweep: 1h"}})
	var last *harness.Graph
	for i := range 10 {
		last = w.content.Image(harness.ImageSpec{Shared: []int{1}, LayerSize: 256 << 10})
		w.push("team/app"+string(rune('a'+i)), last, "v1")
	}
	shared := last.Blobs[1].Digest.String()
	src := keep(w.proxy["eu"])
	w.Start()
	harness.WaitHas(t, w.us, "team/appj", "v1", last, soon)
	w.WaitSettled(soon)
	reads := 0
	for _, r := range src.all() {
		if r.Method == http.MethodGet && r.Class == harness.BlobOp && r.Reference == shared {
			reads++
		}
	}
	if reads != 1 {
		t.Errorf("the shared layer was read %d times", reads)
	}
}
