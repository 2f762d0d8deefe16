package simulation

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// errDead is what a crashed daemon gets of everything.
var errDead = fmt.Errorf("the process is gone: %w", context.Canceled)

// A site is one registry of the world: what it holds, and what ails it.
type site struct {
	*ocitest.Registry
	w    *world
	name string

	mu     sync.Mutex
	ails   []ailment
	proved map[held]time.Time // content that an answer showed to be there
	landed map[held]time.Time // content that was uploaded
	lost   map[held]time.Time // content that the registry forgot
}

// held is content of one repository.
type held struct{ repository, digest string }

// An ailment is one kind of fault of a registry for a while.
type ailment struct {
	Kind     trouble
	Until    time.Time
	PerMille int
}

// A trouble is what a registry can do to a request.
type trouble string

const (
	down      trouble = "down"      // no connection
	refusing  trouble = "refusing"  // 500
	busy      trouble = "busy"      // 503
	throttled trouble = "throttled" // 429
	slow      trouble = "slow"      // answers take seconds
	deaf      trouble = "deaf"      // does what it is asked, and the answer is lost
	doubled   trouble = "doubled"   // a proxy sends the request twice
	cut       trouble = "cut"       // bodies end early
	corrupt   trouble = "corrupt"   // bodies are damaged on their way
	half      trouble = "half"      // listings break off
	late      trouble = "late"      // manifests are taken long after nobody waits for the answer
)

var troubles = []trouble{down, refusing, busy, throttled, slow, deaf, doubled, cut, corrupt, half}

func newSite(w *world, name string, o ocitest.Options) *site {
	o.Now = time.Now
	return &site{
		Registry: ocitest.New("oci://"+name+".example.com", o), w: w, name: name,
		proved: make(map[held]time.Time), landed: make(map[held]time.Time), lost: make(map[held]time.Time),
	}
}

// ail makes the registry ill for a while.
func (s *site) ail(kind trouble, perMille int, length time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ails = append(s.ails, ailment{kind, time.Now().Add(length), perMille})
}

// heal ends all that ails it.
func (s *site) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ails = nil
}

// suffers tells whether a request meets a trouble now.
func (s *site) suffers(kind trouble, d draw) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, a := range s.ails {
		if a.Kind == kind && now.Before(a.Until) && d.also(string(kind)).hits(a.PerMille) {
			return true
		}
	}
	return false
}

// well tells whether nothing has ailed it since a time.
func (s *site) well(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.ails {
		if a.Until.After(since) {
			return false
		}
	}
	for _, at := range s.lost {
		if at.After(since) {
			return false
		}
	}
	return true
}

var operations = map[ocitest.Method]oci.Operation{
	ocitest.Ping: oci.OpPing, ocitest.Catalog: oci.OpList, ocitest.ListTags: oci.OpList,
	ocitest.HeadManifest: oci.OpManifestHead, ocitest.GetManifest: oci.OpManifestRead, ocitest.PutManifest: oci.OpManifestWrite,
	ocitest.HeadBlob: oci.OpBlobHead, ocitest.GetBlob: oci.OpBlobRead, ocitest.StartUpload: oci.OpUploadStart,
	ocitest.PutUpload: oci.OpBlobWrite, ocitest.GetUpload: oci.OpBlobWrite, ocitest.DeleteUpload: oci.OpDelete,
	ocitest.Referrers: oci.OpReferrers,
}

// A request is one of the daemon's on its way.
type request struct {
	s          *site
	p          *process
	method     ocitest.Method
	repository string
	reference  string
	draw       draw
	tardy      bool // it is taken when nobody waits for it any more
}

type requestKey struct{}

// brief is a reference as traces show it: its beginning and its end.
func brief(reference string) string {
	if len(reference) <= 30 {
		return reference
	}
	return reference[:15] + "…" + reference[len(reference)-5:]
}

// do sends a request through the daemon's gate to the registry; apply is what
// the registry does when it arrives.
func (c *client) do(ctx context.Context, method ocitest.Method, repository, reference string, apply func(*request) error) error {
	s := c.s
	r := &request{s: s, p: c.p, method: method, repository: repository, reference: reference}
	name := s.name + " " + string(method) + " " + repository + " " + reference
	switch method {
	case ocitest.HeadBlob, ocitest.GetBlob, ocitest.HeadManifest, ocitest.GetManifest:
		// Jobs share these: who asks for all is who comes first.
	default:
		name += " " + oci.JobOf(ctx)
	}
	r.draw = s.w.chance.now(name)
	ctx = context.WithValue(oci.WithOperation(ctx, operations[method]), requestKey{}, r)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.name, nil)
	if err != nil {
		return err
	}
	// Requests that are begun in one instant come to the gate one by one.
	if err := sleep(ctx, r.draw.also("leave").evenly(time.Microsecond, 300*time.Microsecond)); err != nil {
		return err
	}
	resp, err := c.gate.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
		err = r.fault(resp.StatusCode)
	}
	if err == nil && method == ocitest.PutManifest && s.suffers(late, r.draw) {
		err = r.late(apply)
	} else if err == nil {
		err = apply(r)
		if s.suffers(doubled, r.draw) && err == nil {
			err = apply(r)
		}
		if wait := sleep(ctx, r.delay("answer")); err == nil {
			err = wait
		}
		if err == nil && s.suffers(deaf, r.draw) {
			err = &oci.RegistryError{Registry: s.name, Operation: string(method), Kind: oci.ErrInterrupted}
		}
	}
	if c.p.dead.Load() {
		err = errDead
	}
	s.w.trace("%s %s %s %s: %s", s.name, method, repository, brief(reference), oci.KindOf(err))
	return err
}

// late has the registry take a request when its sender has given up on it, or is
// dead.
func (r *request) late(apply func(*request) error) error {
	r.tardy = true
	r.s.w.senders.Go(func() {
		time.Sleep(r.draw.also("late").between(100*time.Millisecond, 20*time.Second))
		if r.s.w.over() {
			return
		}
		err := apply(r)
		r.s.w.trace("%s %s %s %s, late: %s", r.s.name, r.method, r.repository, brief(r.reference), oci.KindOf(err))
	})
	return &oci.RegistryError{Registry: r.s.name, Operation: string(r.method), Kind: oci.ErrInterrupted}
}

// RoundTrip is the network of the site, behind the daemon's gate: it takes the
// request there, or does not.
func (s *site) RoundTrip(req *http.Request) (*http.Response, error) {
	r := req.Context().Value(requestKey{}).(*request)
	if err := sleep(req.Context(), r.delay("arrive")); err != nil {
		return nil, err
	}
	status := http.StatusOK
	switch {
	case r.p.dead.Load():
		return nil, errDead
	case s.suffers(down, r.draw):
		return nil, fmt.Errorf("dial %s: %w", s.name, oci.ErrUnreachable)
	case s.suffers(busy, r.draw):
		status = http.StatusServiceUnavailable
	case s.suffers(throttled, r.draw):
		status = http.StatusTooManyRequests
	case s.suffers(refusing, r.draw):
		status = http.StatusInternalServerError
	}
	return &http.Response{StatusCode: status, Body: http.NoBody}, nil
}

// fault is the error that a client makes of a status.
func (r *request) fault(status int) error {
	e := &oci.RegistryError{Registry: r.s.name, Operation: string(r.method), Status: status}
	switch status {
	case http.StatusServiceUnavailable:
		e.Kind = oci.ErrUnreachable
	case http.StatusTooManyRequests:
		return &oci.ThrottledError{Wait: r.draw.also("retry-after").between(time.Second, 20*time.Second), Err: e}
	case http.StatusInternalServerError:
		e.Kind = oci.ErrInterrupted
	default:
		return nil
	}
	return e
}

// delay is how long one leg of a request takes.
func (r *request) delay(leg string) time.Duration {
	d := r.draw.also(leg)
	if r.s.suffers(slow, d) {
		return d.between(200*time.Millisecond, 4*time.Second)
	}
	return d.between(100*time.Microsecond, 30*time.Millisecond)
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// note keeps when content was last seen, or brought.
func (s *site) note(m map[held]time.Time, repository, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m[held{repository, digest}] = time.Now()
}

func (s *site) when(m map[held]time.Time, repository, digest string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m[held{repository, digest}]
}
