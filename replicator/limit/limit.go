// Package limit stands between a registry's client and the network: an
// http.RoundTripper that keeps requests per second, requests at once and bytes
// per second within what the registry bears and the config allows, fails fast
// while the registry does not answer, and counts (design sections 3 and 5).
//
// The class of a request and whether it is a background one travel in its
// context (oci.WithOperation, oci.WithBackground). A slot is held per HTTP
// request, from sending it until its answer's body is closed or read to its
// end: whoever waits for something else must not hold an open body meanwhile.
// A copy within one registry opens the read before the upload.
package limit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// defaultConnections is reached by trying only: over 80 ms it makes 900
	// requests a second of what background copies may use.
	defaultConnections = 96
	tokenConnections   = 8
	// A deadline that ends so soon after a request was sent says nothing about
	// the registry.
	patience = time.Second
	// Who gave up on a request without a body after this long had no answer in
	// time, whatever the reason given.
	noAnswer = 30 * time.Second
)

// A Spec is what one registry bears.
type Spec struct {
	// Registry is the config's name, for errors and metrics.
	Registry string
	// Requests per second; 0: no cap. Pings and token requests are not counted.
	Requests float64
	// Rates are the provider's quotas per second of single classes, beside
	// Requests; a class that is not named has none of its own.
	Rates map[oci.Operation]float64
	// Connections is how many requests may be under way at once, 0: 96. The
	// number actually used adapts to the registry, up to this. Pings and token
	// requests have slots of their own.
	Connections int
	// Bandwidth caps the bytes of all bodies, both ways together.
	Bandwidth Table
}

// A Registry limits and counts the requests to one registry. All its clients
// and jobs share it.
type Registry struct {
	spec      Spec
	base      http.RoundTripper
	metrics   *Metrics
	bandwidth []*Bandwidth
	requests  *queue
	tokens    *queue
	breaker   breaker
	silence   silence

	mu     sync.Mutex
	counts map[oci.Operation]int64

	answers429, unreached, read, written, blobRead atomic.Int64
}

// Stats is what has been asked of a registry so far.
type Stats struct {
	// Requests that were sent, by class.
	Requests map[oci.Operation]int64
	// Refused counts 429, Unreachable what the breaker counts.
	Refused, Unreachable int64
	// BytesRead and BytesWritten are of all bodies, BlobBytesRead of blobs alone.
	BytesRead, BytesWritten, BlobBytesRead int64
}

// New limits what goes through base; metrics may be nil. Nothing is started.
func New(spec Spec, base http.RoundTripper, m *Metrics) *Registry {
	if spec.Connections <= 0 {
		spec.Connections = defaultConnections
	}
	r := &Registry{spec: spec, base: base, metrics: m, breaker: breaker{registry: spec.Registry}, counts: make(map[oci.Operation]int64)}
	if b := NewBandwidth(spec.Bandwidth); b != nil {
		r.bandwidth = []*Bandwidth{b}
	}
	resized := func(op oci.Operation, size int) { m.setWindow(spec.Registry, op, size) }
	r.requests = newQueue(spec.Connections, spec.Requests, spec.Rates, resized)
	r.tokens = newQueue(min(tokenConnections, spec.Connections), 0, nil, resized)
	m.setUp(spec.Registry, true)
	return r
}

// RoundTrip sends one request when its turn has come. While the breaker is open
// all but pings fail at once with oci.ErrUnreachable.
func (r *Registry) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	op := known(oci.OperationOf(ctx))
	p, err := r.admit(ctx, op)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	sent, body := r.outgoing(req)
	oci.Tally(ctx)
	began := time.Now()
	resp, err := r.base.RoundTrip(sent)
	took := time.Since(began)

	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	o := judge(ctx, status, err, took, body)
	r.note(op, status, took, o)
	if p != nil {
		latency := took
		if op == oci.OpBlobWrite {
			latency = 0 // its length is the blob's
		}
		p.answered(o, latency)
	}
	if err != nil {
		if p != nil {
			p.release()
		}
		return nil, err
	}
	resp.Body = r.incoming(ctx, op, resp, p)
	return resp, nil
}

// Warm has n connections open for requests that will come in a moment, where
// base can do so (it has a method Warm): never more than may be in use at once,
// and none to a registry that does not answer.
func (r *Registry) Warm(n int) {
	base, ok := r.base.(interface{ Warm(n int) })
	if _, down := r.Down(); ok && !down {
		base.Warm(min(n, r.spec.Connections))
	}
}

// Down tells whether the breaker is open, and since when the registry has not answered.
func (r *Registry) Down() (since time.Time, down bool) { return r.breaker.state() }

// Stats is a copy of the counters.
func (r *Registry) Stats() Stats {
	s := Stats{
		Requests: make(map[oci.Operation]int64), Refused: r.answers429.Load(), Unreachable: r.unreached.Load(),
		BytesRead: r.read.Load(), BytesWritten: r.written.Load(), BlobBytesRead: r.blobRead.Load(),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for op, n := range r.counts {
		s.Requests[op] = n
	}
	return s
}

// admit waits for the request's turn; pings need no slot.
func (r *Registry) admit(ctx context.Context, op oci.Operation) (*permit, error) {
	switch op {
	case oci.OpPing:
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, nil
	case oci.OpToken:
		if err := r.breaker.check(); err != nil {
			return nil, err
		}
		return r.tokens.acquire(ctx, op, false)
	}
	if err := r.breaker.check(); err != nil {
		return nil, err
	}
	return r.requests.acquire(ctx, op, oci.IsBackground(ctx))
}

// note counts an answer and moves the breaker.
func (r *Registry) note(op oci.Operation, status int, took time.Duration, o outcome) {
	r.mu.Lock()
	r.counts[op]++
	r.mu.Unlock()
	r.metrics.request(r.spec.Registry, op, status, took)
	r.silence.note(op, status, o, time.Now())
	switch {
	case o == overloaded:
		r.unreached.Add(1)
		if r.breaker.unreachable(time.Now()) {
			r.metrics.setUp(r.spec.Registry, false)
			err := r.breaker.check()
			r.requests.fail(err)
			r.tokens.fail(err)
		}
		return
	case o == refused:
		r.answers429.Add(1)
	}
	// A token may come from another server: its answer says nothing about this one.
	if status == 0 || op == oci.OpToken {
		return
	}
	if r.breaker.reached(op == oci.OpPing && status < 500) {
		r.metrics.setUp(r.spec.Registry, true)
		r.requests.reset()
		r.tokens.reset()
	}
}

// judge says what an answer, or its absence, tells about the registry.
func judge(ctx context.Context, status int, err error, took time.Duration, body *stream) outcome {
	switch {
	case status == http.StatusTooManyRequests:
		return refused
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		return overloaded
	case err == nil && status >= http.StatusInternalServerError:
		return silent
	case err == nil:
		return good
	case body != nil && body.failed.Load():
		return silent // what was to be sent failed, not the registry
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return silent // no descriptor of ours, or of the machine's, is left
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		if took >= patience && (isTimeout(cause) || errors.Is(cause, oci.ErrUnreachable)) || took >= noAnswer && body == nil {
			return overloaded
		}
		return silent
	case errors.Is(err, oci.ErrUnreachable):
		return overloaded
	case body != nil && body.moved.Load() && !isTimeout(err):
		return silent // cut in the middle
	}
	// What the transport itself would not do is no outage.
	for _, kind := range []error{oci.ErrDenied, oci.ErrRefused, oci.ErrUnsupported, oci.ErrInvalid, oci.ErrInterrupted} {
		if errors.Is(err, kind) {
			return silent
		}
	}
	return overloaded
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// outgoing puts a request's body, where it has one, under the caps.
func (r *Registry) outgoing(req *http.Request) (*http.Request, *stream) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	ctx := req.Context()
	caps := append(r.bandwidth[:len(r.bandwidth):len(r.bandwidth)], bandwidthsOf(ctx)...)
	wrap := func(body io.ReadCloser) *stream {
		return &stream{ReadCloser: body, ctx: ctx, caps: caps, count: func(n int) { r.written.Add(int64(n)) }}
	}
	body := wrap(req.Body)
	sent := *req // a RoundTripper must not change the caller's
	sent.Body = body
	if again := req.GetBody; again != nil {
		sent.GetBody = func() (io.ReadCloser, error) {
			b, err := again()
			if err != nil {
				return nil, err
			}
			return wrap(b), nil
		}
	}
	return &sent, body
}

// incoming puts an answer's body under the cap and ties the slot to it.
func (r *Registry) incoming(ctx context.Context, op oci.Operation, resp *http.Response, p *permit) io.ReadCloser {
	var ended func()
	if p != nil {
		ended = p.release
	}
	if resp.Body == nil || resp.Body == http.NoBody {
		if ended != nil {
			ended()
		}
		return http.NoBody
	}
	blob := op == oci.OpBlobRead && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent)
	return &stream{ReadCloser: resp.Body, ctx: ctx, caps: r.bandwidth, ended: ended, count: func(n int) {
		r.read.Add(int64(n))
		if blob {
			r.blobRead.Add(int64(n))
			r.metrics.blobRead(r.spec.Registry, n)
		}
	}}
}

// known folds what is no class of oci's into "other".
func known(op oci.Operation) oci.Operation {
	switch op {
	case oci.OpPing, oci.OpToken, oci.OpManifestRead, oci.OpManifestHead, oci.OpManifestWrite, oci.OpBlobRead,
		oci.OpBlobHead, oci.OpBlobWrite, oci.OpUploadStart, oci.OpList, oci.OpReferrers, oci.OpDelete, oci.OpCreate:
		return op
	}
	return "other"
}
