package journal

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// An engine opens one journal's store again and again: what a process does
// that ends and starts.
type engine func(t testing.TB) func(now func() time.Time) (*Journal, error)

// contract is what every engine's journal must do.
var contract = []struct {
	name string
	test func(*testing.T, *harness)
}{}

func testContract(t *testing.T, e engine) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newHarness(t, e))
		})
	}
}

// holds registers rules of the contract.
func holds(name string, test func(*testing.T, *harness)) bool {
	contract = append(contract, struct {
		name string
		test func(*testing.T, *harness)
	}{name, test})
	return true
}

// A harness is a running journal under a clock that stands still.
type harness struct {
	*testing.T
	*Journal
	open   func(func() time.Time) (*Journal, error)
	cancel context.CancelFunc
	ended  chan error

	mu  sync.Mutex
	now time.Time
}

var (
	ctx0  = context.Background()
	start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
)

func newHarness(t *testing.T, e engine) *harness {
	h := &harness{T: t, open: e(t), now: start}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *harness) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *harness) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *harness) start() {
	h.Helper()
	j, err := h.open(h.clock)
	if err != nil {
		h.Fatal(err)
	}
	h.Journal = j
	ctx, cancel := context.WithCancel(ctx0)
	h.cancel, h.ended = cancel, make(chan error, 1)
	go func() { h.ended <- j.Run(ctx) }()
}

func (h *harness) stop() {
	h.Helper()
	if h.cancel == nil {
		return
	}
	counted(h, h.Journal)
	h.cancel()
	h.cancel = nil
	if err := <-h.ended; err != nil {
		h.Error(err)
	}
	if err := h.Close(); err != nil {
		h.Error(err)
	}
}

// counted holds the numbers that are kept of rows against the rows: after each
// test of the contract, and after each crash.
func counted(tb testing.TB, j *Journal) {
	tb.Helper()
	for _, query := range []string{sqlMiscountedJobs, sqlMiscountedRecords} {
		var groups int64
		if _, err := one(ctx0, j.reads, query, nil, &groups); !isUnavailable(err) && (err != nil || groups > 0) {
			tb.Errorf("%d kept numbers are not those of the rows, %v", groups, err)
		}
	}
}

func (h *harness) restart() {
	h.Helper()
	h.stop()
	h.start()
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func at(registry, repository string) replicator.Place {
	return replicator.Place{Registry: registry, Identity: "oci:" + registry + ".example.com", Repository: repository}
}

func dgst(s string) digest.Digest { return digest.FromString(s) }

// pushed is a job of route prod from eu to us.
func (h *harness) pushed(tag, content string) replicator.Job {
	var d digest.Digest
	if content != "" {
		d = dgst(content)
	}
	return replicator.Job{Source: at("eu", "team/app"), Destination: at("us", "team/app"), Tag: tag, Digest: d,
		Wants: []replicator.Want{{Route: "prod", Destination: "us"}}, PushedAt: h.clock()}
}

func (h *harness) accept(jobs ...replicator.Job) Accepted {
	h.Helper()
	return must(h.Accept(ctx0, Intake{Jobs: jobs}))(h)
}

func (h *harness) claims(n int) []Claim {
	h.Helper()
	return must(h.Claim(ctx0, ClaimOptions{Max: n, MaxForeground: n, MaxBackground: n, Now: h.clock()}))(h)
}

// claim takes the one claim there must be.
func (h *harness) claim() Claim {
	h.Helper()
	claims := h.claims(10)
	if len(claims) != 1 {
		h.Fatalf("%d claims, want 1: %+v", len(claims), claims)
	}
	return claims[0]
}

func (h *harness) finish(c Claim, change func(*Outcome)) {
	h.Helper()
	var outcomes []Outcome
	for _, job := range c.Jobs {
		o := Outcome{ID: job.ID, Generation: job.Generation, State: replicator.Done, Counted: true}
		if change != nil {
			change(&o)
		}
		outcomes = append(outcomes, o)
	}
	h.ok(h.Finish(ctx0, c, outcomes))
}

// live gives the row of desired state of a tag.
func (h *harness) live(tag string) replicator.Job {
	h.Helper()
	job, ok := h.find(tag, replicator.Waiting, replicator.Running, replicator.Failed, replicator.Refused, replicator.Held)
	if !ok {
		h.Fatalf("no job of %s", tag)
	}
	return job
}

func (h *harness) find(tag string, states ...replicator.JobState) (replicator.Job, bool) {
	h.Helper()
	jobs, _, err := h.Jobs(ctx0, JobFilter{Tag: tag, States: states})
	h.ok(err)
	if len(jobs) > 1 {
		h.Fatalf("%d jobs of %s", len(jobs), tag)
	}
	if len(jobs) == 0 {
		return replicator.Job{}, false
	}
	return jobs[0], true
}

// ended are the digests a tag's jobs ended with in a state, oldest first.
func (h *harness) endedWith(tag string, state replicator.JobState) []digest.Digest {
	h.Helper()
	jobs, _, err := h.Jobs(ctx0, JobFilter{Tag: tag, States: []replicator.JobState{state}})
	h.ok(err)
	var list []digest.Digest
	for i := len(jobs) - 1; i >= 0; i-- {
		list = append(list, jobs[i].Digest)
	}
	return list
}

func (h *harness) standing(route, destination string) Standing {
	h.Helper()
	for _, s := range must(h.Standings(ctx0))(h) {
		if s.Route == route && s.Destination == destination {
			return s
		}
	}
	return Standing{}
}
