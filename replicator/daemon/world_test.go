package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/transfer"
)

// A world is a daemon with its journal and the registries it joins, all in one
// bubble of synctest: its time passes only when nothing is left to do.
type world struct {
	*testing.T
	*Daemon
	dir     string
	options Options
	routes  []plan.Route
	sites   map[string]*site
	copier  transfer.Options
	polls   map[string]time.Duration

	offset  atomic.Int64 // of the daemon's and the journal's clock
	step    func(context.Context, journal.Stage) error
	echoes  echoes
	running bool
	cancel  context.CancelFunc
	ended   chan error
	closed  func()
}

// echoes counts what is still to be told.
type echoes struct{ under atomic.Int64 }

func (e *echoes) Go(f func()) {
	e.under.Add(1)
	go func() {
		defer e.under.Add(-1)
		f()
	}()
}

// Wait returns once nothing is to be told any more.
func (e *echoes) Wait() {
	for e.under.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// A site is a registry and its gate: every request passes the gate.
type site struct {
	*ocitest.Registry
	name string
	w    *world
	gate *limit.Registry

	mu     sync.Mutex
	down   bool
	status int // of every answer; 0: 200
	hooks  []func(context.Context, ocitest.Call) error
	done   []func(ocitest.Call)
}

// setting is what a test wants of its world beside the routes.
type setting func(*world)

// registries gives registries options of their own, by name; others are like
// distribution.
func having(name string, o ocitest.Options) setting {
	return func(w *world) { w.site(name, o) }
}

func idle() setting    { return func(w *world) { w.running = false } }
func oneShot() setting { return func(w *world) { w.options.OneShot = true } }

// in runs a test in a world of its own.
func in(t *testing.T, routes []plan.Route, test func(*world), settings ...setting) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, dir: t.TempDir(), routes: routes, sites: make(map[string]*site), running: true}
		for _, set := range settings {
			set(w)
		}
		for _, r := range routes {
			for _, name := range append([]string{r.From}, r.To...) {
				if w.sites[name] == nil {
					w.site(name, ocitest.Options{})
				}
			}
		}
		w.open()
		if w.running {
			w.start()
		}
		defer w.shut()
		test(w)
	})
}

func (w *world) site(name string, o ocitest.Options) *site {
	s := &site{Registry: ocitest.New("oci://"+name+".example.com", o), name: name, w: w}
	s.gate = limit.New(limit.Spec{Registry: name, Connections: 1000}, s, nil)
	s.OnCall(s.call)
	s.OnDone(s.ended)
	w.sites[name] = s
	return s
}

// RoundTrip is the network of the site: it answers, or it does not.
func (s *site) RoundTrip(*http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fmt.Errorf("dial %s: %w", s.name, oci.ErrUnreachable)
	}
	return &http.Response{StatusCode: cmp.Or(s.status, http.StatusOK), Body: http.NoBody}, nil
}

var operations = map[ocitest.Method]oci.Operation{
	ocitest.Ping: oci.OpPing, ocitest.Catalog: oci.OpList, ocitest.ListTags: oci.OpList,
	ocitest.HeadManifest: oci.OpManifestHead, ocitest.GetManifest: oci.OpManifestRead, ocitest.PutManifest: oci.OpManifestWrite,
	ocitest.HeadBlob: oci.OpBlobHead, ocitest.GetBlob: oci.OpBlobRead, ocitest.StartUpload: oci.OpUploadStart,
	ocitest.PutUpload: oci.OpBlobWrite, ocitest.GetUpload: oci.OpBlobWrite, ocitest.DeleteUpload: oci.OpDelete,
	ocitest.Referrers: oci.OpReferrers, ocitest.DeleteTag: oci.OpDelete,
}

// call has every request of the registry pass its gate, then the test's hooks.
func (s *site) call(ctx context.Context, c ocitest.Call) error {
	req, err := http.NewRequestWithContext(oci.WithOperation(ctx, operations[c.Method]), http.MethodGet, "https://"+s.name, nil)
	if err != nil {
		return err
	}
	resp, err := s.gate.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError {
		return &oci.RegistryError{Registry: s.name, Operation: string(c.Method), Status: resp.StatusCode, Kind: oci.ErrInterrupted}
	}
	s.mu.Lock()
	hooks := slices.Clone(s.hooks)
	s.mu.Unlock()
	for _, hook := range hooks {
		if err := hook(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) ended(c ocitest.Call) {
	s.mu.Lock()
	done := slices.Clone(s.done)
	s.mu.Unlock()
	for _, hook := range done {
		hook(c)
	}
}

// on asks a hook before each request: its error is the answer.
func (s *site) on(hook func(context.Context, ocitest.Call) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, hook)
}

// off takes all hooks away.
func (s *site) off() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = nil
}

// after watches each request's end.
func (s *site) after(hook func(ocitest.Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, hook)
}

func (s *site) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// setStatus has it give this answer to everything; 0: as ever.
func (s *site) setStatus(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// names is what a tag names there, empty where there is no such tag.
func (s *site) names(repository, tag string) digest.Digest {
	m, _ := s.Manifest(repository, tag)
	return m.Digest
}

func (w *world) clock() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

// jump has the daemon's and the journal's clock jump ahead.
func (w *world) jump(d time.Duration) { w.offset.Add(int64(d)) }

func (w *world) state(routes []plan.Route, fingerprint string) *State {
	w.Helper()
	st := &State{Registries: make(map[string]*Registry), Fed: make(map[string]bool), Fingerprint: fingerprint}
	var named []plan.Registry
	for name, s := range w.sites {
		st.Registries[name] = &Registry{Name: name, Client: s, Gate: s.gate, Print: name, Poll: w.polls[name]}
		named = append(named, plan.Registry{Name: name, Identity: s.Identity()})
	}
	for _, r := range routes {
		for _, to := range r.To {
			st.Fed[to] = true
		}
	}
	rules, err := plan.New(routes, named)
	if err != nil {
		w.Fatal(err)
	}
	st.Rules = rules
	return st
}

// open makes a daemon over the journal in the world's directory, as a process does.
func (w *world) open() {
	w.Helper()
	ctx := context.Background()
	j, err := journal.Open(ctx, journal.Options{Dir: w.dir, Now: w.clock, Step: w.step})
	if err != nil {
		w.Fatal(err)
	}
	jctx, stop := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() { gone <- j.Run(jctx) }()
	w.closed = func() {
		stop()
		if err := errors.Join(<-gone, j.Close()); err != nil {
			w.Error(err)
		}
	}
	o := w.options
	w.copier.Now = w.clock
	o.Journal, o.Copier, o.Now = j, transfer.New(w.copier), w.clock
	if testing.Verbose() && o.Log == nil {
		o.Log = zap.NewNop()
	}
	w.Daemon = New(o, w.state(w.routes, "1"))
	if err := w.Configure(ctx, "config"); err != nil {
		w.Fatal(err)
	}
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.ended, w.running = cancel, make(chan error, 1), true
	d, ended := w.Daemon, w.ended
	go func() { ended <- d.Run(ctx, 30*time.Second) }()
}

// halt stops the daemon and waits until nothing of it runs; the journal goes on.
func (w *world) halt() {
	w.Helper()
	if w.cancel == nil {
		return
	}
	w.cancel()
	w.cancel = nil
	if err := <-w.ended; err != nil {
		w.Error(err)
	}
}

func (w *world) shut() {
	w.Helper()
	w.echoes.Wait()
	w.halt()
	w.closed()
}

// restart ends the process and starts another over the same directory.
func (w *world) restart() {
	w.Helper()
	w.halt()
	w.closed()
	w.open()
	w.start()
}

// until waits for a condition; the bubble's time passes meanwhile.
func (w *world) until(what string, condition func() bool) {
	w.Helper()
	wait := time.Millisecond
	for began := time.Now(); time.Since(began) < 20*time.Minute; wait = min(wait*5/4+1, time.Second) {
		if condition() {
			return
		}
		time.Sleep(wait)
	}
	w.Fatalf("never: %s\n%s", what, w.describe())
}

// describe shows the jobs and findings, for failures.
func (w *world) describe() string {
	var s strings.Builder
	for _, j := range w.allJobs() {
		fmt.Fprintf(&s, "job %s %s → %s tag %q digest %.17s %s lane %s attempts %d next %s", j.ID, j.Source, j.Destination, j.Tag, j.Digest, j.State, j.Lane, j.Attempts, j.NextAttempt.Sub(w.clock()))
		if j.Error != nil {
			fmt.Fprintf(&s, " (%s: %s)", j.Error.Kind, j.Error.Message)
		}
		s.WriteString("\n")
	}
	for _, f := range w.allFindings() {
		fmt.Fprintf(&s, "finding %s %s/%s:%s ×%d: %s\n", f.Kind, f.Registry, f.Repository, f.Tag, f.Count, f.Message)
	}
	return s.String()
}

func (w *world) allJobs() []replicator.Job {
	w.Helper()
	jobs, _, err := w.journal.Jobs(context.Background(), journal.JobFilter{Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	return jobs
}

func (w *world) allFindings() []replicator.Finding {
	w.Helper()
	findings, _, err := w.journal.Findings(context.Background(), journal.FindingFilter{Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	return findings
}

// found are the findings of a kind.
func (w *world) found(kind replicator.FindingKind) []replicator.Finding {
	w.Helper()
	return slices.DeleteFunc(w.allFindings(), func(f replicator.Finding) bool { return f.Kind != kind })
}

// open jobs are those waiting or running.
func (w *world) openJobs() int64 {
	w.Helper()
	counts, err := w.journal.JobCounts(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	n := int64(0)
	for _, state := range []replicator.JobState{replicator.Waiting, replicator.Running} {
		for _, c := range counts[state] {
			n += c
		}
	}
	return n
}

// rest waits until no job waits or runs.
func (w *world) rest() {
	w.Helper()
	w.until("all jobs ended", func() bool { return w.openJobs() == 0 })
}

// job is the newest job of a tag (or digest) at a destination.
func (w *world) job(destination, repository, reference string) (newest replicator.Job) {
	w.Helper()
	for _, j := range w.allJobs() {
		if j.Destination.Registry == destination && j.Destination.Repository == repository && j.Reference() == reference &&
			(newest.ID == "" || j.State != replicator.Superseded) {
			if newest.ID == "" || newest.State == replicator.Superseded || j.CreatedAt.After(newest.CreatedAt) || live(j) && !live(newest) {
				newest = j
			}
		}
	}
	if newest.ID == "" {
		w.Fatalf("no job for %s/%s:%s\n%s", destination, repository, reference, w.describe())
	}
	return newest
}

func live(j replicator.Job) bool {
	return j.State != replicator.Done && j.State != replicator.Superseded
}

// record is what is proven of a reference.
func (w *world) record(registry, repository, reference string) (replicator.Record, bool) {
	w.Helper()
	r, ok, err := w.journal.Record(context.Background(), w.sites[registry].Identity(), repository, reference)
	if err != nil {
		w.Fatal(err)
	}
	return r, ok
}

// status is one destination's.
func (w *world) status(route, destination string) Status {
	w.Helper()
	all, err := w.Statuses(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	for _, s := range all {
		if s.Route.Name == route && s.Destination == destination {
			return s
		}
	}
	w.Fatalf("no status of %s at %s", route, destination)
	return Status{}
}

// proven waits until a destination's tag is proven to name a content, and
// checks that it is so.
func (w *world) proven(registry, repository, tag string, c ocitest.Content) {
	w.Helper()
	w.until(fmt.Sprintf("%s/%s:%s proven as %.17s", registry, repository, tag, c.Digest()), func() bool {
		r, ok := w.record(registry, repository, tag)
		return ok && r.Digest == c.Digest()
	})
	if got := w.sites[registry].names(repository, tag); got != c.Digest() {
		w.Fatalf("%s/%s:%s names %q, and is on record as %s", registry, repository, tag, got, c.Digest())
	}
	if !w.sites[registry].Has(repository, c) {
		w.Fatalf("%s/%s:%s is on record, and is not whole", registry, repository, tag)
	}
}

// event is a webhook's.
func (w *world) event(registry, repository, tag string, d digest.Digest) replicator.Event {
	return replicator.Event{
		Action: replicator.Push, Registry: registry, Repository: repository, Tag: tag, Digest: d,
		PushedAt: w.clock(), SenderTime: true, ReceivedAt: w.clock(), Lane: replicator.LaneWebhook, Cause: "webhook",
	}
}

func (w *world) accept(events ...replicator.Event) int {
	w.Helper()
	n, err := w.Accept(context.Background(), events, nil, nil)
	if err != nil {
		w.Fatal(err)
	}
	return n
}

// push pushes a content and tells of it, as a registry does.
func (w *world) push(registry, repository, tag string, c ocitest.Content) {
	w.Helper()
	w.sites[registry].Push(repository, tag, c)
	w.accept(w.event(registry, repository, tag, c.Digest()))
}

// echo has registries tell of the manifests that are put there, after a delay.
func (w *world) echo(delay func() time.Duration, names ...string) {
	for _, name := range names {
		s := w.sites[name]
		s.after(func(c ocitest.Call) {
			if c.Method != ocitest.PutManifest || c.Err != nil {
				return
			}
			m, _ := s.Manifest(c.Repository, c.Reference)
			ev := w.event(name, c.Repository, "", m.Digest)
			ev.MayRefer = true
			if !oci.IsDigest(c.Reference) {
				ev.Tag, ev.MayRefer = c.Reference, false
			}
			w.echoes.Go(func() {
				time.Sleep(delay())
				w.accept(ev)
			})
		})
	}
}

func after(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func within(d time.Duration) func() time.Duration {
	return func() time.Duration { return rand.N(d) }
}

// tagWrites are the PUTs of a tag that a registry has taken, in order.
func (s *site) tagWrites(repository, tag string) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Method == ocitest.PutManifest && c.Repository == repository && c.Reference == tag && c.Err == nil {
			n++
		}
	}
	return n
}

// watchTag notes what a tag names after each PUT that may have changed it.
func (s *site) watchTag(repository, tag string) func() []digest.Digest {
	var mu sync.Mutex
	var seen []digest.Digest
	s.after(func(c ocitest.Call) {
		if c.Method != ocitest.PutManifest || c.Repository != repository || c.Reference != tag {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if now := s.names(repository, tag); len(seen) == 0 || seen[len(seen)-1] != now {
			seen = append(seen, now)
		}
	})
	return func() []digest.Digest {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// route is a plain one; change it as the test needs.
func route(name, from string, to ...string) plan.Route {
	return plan.Route{
		Name: name, From: from, To: to, Referrers: "true", Drift: "keep", Conflict: "ask",
		RPO: 5 * time.Minute, Proof: 24 * time.Hour, Owner: "platform-team", Contact: "#platform",
	}
}

// star is one route without a sweep.
func star() []plan.Route { return []plan.Route{route("prod", "eu", "us")} }

// with changes a route.
func with(r plan.Route, change func(*plan.Route)) []plan.Route {
	change(&r)
	return []plan.Route{r}
}

const app = "team/app"

func filterOf(ids ...string) journal.JobFilter { return journal.JobFilter{IDs: ids} }

// String is a status in one line, for failures.
func (s Status) String() string {
	return fmt.Sprintf("%s→%s lag %s %s (%s) waiting %d running %d failed %d refused %d held %d proven %d remaining %d",
		s.Route.Name, s.Destination, s.Lag, s.State, s.Reason, s.Waiting, s.Running, s.Failed, s.Refused, s.Held, s.Proven, s.Remaining)
}
