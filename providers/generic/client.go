package generic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxErrorBody bounds what is read of an answer that is no success.
	maxErrorBody = 64 << 10
	maxRedirects = 10
	maxLocation  = 16 << 10
)

// A call is one request as the protocol knows it; tokens, redirects and retries
// are do's.
type call struct {
	op oci.Operation
	// what is told in errors: method and object, no query.
	what   string
	method string
	url    *url.URL
	header http.Header
	// scopes are what a token has to allow.
	scopes []string
	body   *payload
	// digest is what the call is about, where it is about one.
	digest digest.Digest
	// limit bounds an answer that is read whole; 0 leaves the body to the caller.
	limit int64
	// accept are the statuses that count as success; nil: 200.
	accept []int
	// tries bounds the requests made for it; 0: the default.
	tries int
	// noAuth sends no credentials of its own; challenged takes a challenge as success.
	noAuth, challenged bool
	// stay takes redirects as an answer.
	stay bool
	// meant: it is asked where it is on purpose, so that host's no is a no.
	meant bool
	// patient waits long for the answer: the registry may be storing a blob.
	patient bool
}

func (c *call) succeeds(status int) bool {
	if c.accept == nil {
		return status == http.StatusOK
	}
	for _, s := range c.accept {
		if s == status {
			return true
		}
	}
	return false
}

// A payload is what a request sends.
type payload struct {
	bytes []byte // held whole, may be sent again
	// open gives the bytes of a stream; unless they are kept it is asked again
	// only where the registry has refused the request without reading it.
	open func(context.Context) (io.ReadCloser, error)
	kept bool
	size int64
}

// An answer is a success.
type answer struct {
	status int
	header http.Header
	length int64         // -1: not told
	url    *url.URL      // of the last hop
	trust  bool          // every hop was the registry itself
	bytes  []byte        // with a limit
	body   io.ReadCloser // without
}

// do makes a request, again where that is safe and may help. Its errors are
// classified: *oci.RegistryError or *oci.ThrottledError.
func (r *Registry) do(ctx context.Context, c call) (*answer, error) {
	p := patience{began: time.Now(), tries: c.tries}
	for {
		a, f := r.attempt(ctx, &c)
		if f == nil {
			return a, nil
		}
		wait, again := p.next(f)
		if !again || ctx.Err() != nil {
			return nil, f.error()
		}
		if sleep(ctx, wait) != nil {
			return nil, r.canceled(ctx, c.what)
		}
	}
}

// attempt makes a request once, following redirects and refreshing a refused
// token once.
func (r *Registry) attempt(ctx context.Context, c *call) (*answer, *failure) {
	var (
		u         = c.url
		trust     = r.own(u)
		guard     = false
		refreshed = false
		seen      = map[string]bool{u.String(): true}
	)
	if !trust { // an upload's session may live elsewhere
		var err error
		if guard, err = r.allow.check(ctx, u); err != nil {
			return nil, r.refusedHost(ctx, c, err)
		}
	}
	for hop := 0; ; {
		var sent grant
		if trust && !c.noAuth {
			var err error
			if sent, err = r.auth.grant(ctx, c.scopes); err != nil {
				return nil, r.authFailure(ctx, c, err)
			}
		}
		resp, f := r.send(ctx, c, u, sent.header, guard)
		if f != nil {
			return nil, f
		}
		status := resp.StatusCode
		switch {
		case status == http.StatusUnauthorized && trust && c.challenged && len(parseChallenges(resp.Header.Values("WWW-Authenticate"))) > 0:
			r.auth.learn(resp.Header)
			discard(resp.Body)
			return &answer{status: status, header: resp.Header, url: u}, nil
		case status == http.StatusUnauthorized && trust && !c.noAuth && !refreshed:
			again, err := r.auth.refused(ctx, resp.Header, c.scopes, sent)
			if err != nil {
				discard(resp.Body)
				return nil, r.authFailure(ctx, c, err)
			}
			if again {
				discard(resp.Body)
				refreshed = true
				continue
			}
		case isRedirect(status) && !c.stay && (c.method == http.MethodGet || c.method == http.MethodHead || status == 307 || status == 308):
			location := resp.Header.Get("Location")
			discard(resp.Body)
			next, err := r.follow(u, location)
			if err != nil {
				return nil, r.invalid(c, status, err)
			}
			if hop++; hop > maxRedirects || seen[next.String()] {
				return nil, r.invalid(c, status, fmt.Errorf("redirects without end"))
			}
			seen[next.String()] = true
			guard = false
			if !r.own(next) {
				if guard, err = r.allow.check(ctx, next); err != nil {
					return nil, r.refusedHost(ctx, c, err)
				}
				trust = false // for good: nobody else sends us back with credentials
			}
			u = next
			continue
		}
		return r.finish(ctx, c, resp, u, trust)
	}
}

// finish turns a last response into an answer or a failure.
func (r *Registry) finish(ctx context.Context, c *call, resp *http.Response, u *url.URL, trust bool) (*answer, *failure) {
	if !c.succeeds(resp.StatusCode) {
		body, _ := r.readWhole(ctx, resp, maxErrorBody) // what came of it serves
		_ = resp.Body.Close()
		return nil, r.refusal(c, resp.StatusCode, resp.Header, body, trust || c.meant)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, url: u, trust: trust}
	if c.limit == 0 {
		a.body = resp.Body
		return a, nil
	}
	body, err := r.readWhole(ctx, resp, c.limit+1)
	_ = resp.Body.Close()
	if err != nil {
		if ctx.Err() != nil {
			return nil, &failure{err: r.canceled(ctx, c.what)}
		}
		return nil, &failure{err: r.broken(c, err), passing: true}
	}
	if int64(len(body)) > c.limit {
		return nil, r.tooLarge(c, resp.StatusCode, fmt.Sprintf("answer over %d bytes", c.limit))
	}
	if len(body) > oci.MaxValues && oci.CountValues(body) > oci.MaxValues {
		return nil, r.tooLarge(c, resp.StatusCode, fmt.Sprintf("answer of more than %d values", oci.MaxValues))
	}
	a.bytes = body
	return a, nil
}

// send makes one HTTP request. The body of its response ends the request when closed.
func (r *Registry) send(parent context.Context, c *call, u *url.URL, authorization string, guard bool) (*http.Response, *failure) {
	ctx, cancel := context.WithCancelCause(oci.WithOperation(parent, c.op))
	if guard {
		ctx = withGuard(ctx)
	}
	w := newWatch(cancel, r.idle)
	answerTime := r.idle
	if c.patient {
		answerTime = max(answerTime, commitTimeout)
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { w.arm(answerTime, errNoAnswer) },
	})
	req := (&http.Request{
		Method: c.method, URL: u, Host: u.Host, Header: c.header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	req.Header.Set("User-Agent", userAgent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	stream, err := c.body.attach(ctx, req, w)
	if err != nil {
		w.end()
		return nil, &failure{err: &contentError{fmt.Errorf("%s: %s: open content: %w", r.spec.Name, c.what, err)}}
	}
	resp, err := r.rt.RoundTrip(req)
	w.rest()
	if err == nil {
		wrap := func(err error) error {
			if parent.Err() != nil {
				return r.canceled(parent, c.what)
			}
			return r.broken(c, stallOr(ctx, err))
		}
		resp.Body = &readBody{ReadCloser: resp.Body, w: w, wrap: wrap}
		return resp, nil
	}
	stalled := stallOr(ctx, err)
	w.end()
	if parent.Err() != nil {
		return nil, &failure{err: r.canceled(parent, c.what)}
	}
	if failed := stream.failed(); failed != nil && !isStall(stalled) {
		return nil, &failure{err: &contentError{fmt.Errorf("%s: %s: read content: %w", r.spec.Name, c.what, failed)}}
	}
	return nil, r.noAnswer(c, stalled)
}

// A contentError is a fault of what was to be sent, not of the registry.
type contentError struct{ error }

func (e *contentError) Unwrap() error { return e.error }

// attach gives a request its body. Bytes held whole can be sent again by the
// transport on a connection that the server has meanwhile closed, for which it
// wants an idempotency key, present but never sent; streams ask for leave first.
func (p *payload) attach(ctx context.Context, req *http.Request, w *watch) (*sendBody, error) {
	switch {
	case p == nil:
		return nil, nil
	case p.open == nil:
		req.ContentLength = int64(len(p.bytes))
		req.Header["X-Idempotency-Key"] = nil
		req.Body = http.NoBody
		if len(p.bytes) > 0 {
			req.GetBody = func() (io.ReadCloser, error) {
				return &sendBody{ReadCloser: io.NopCloser(bytes.NewReader(p.bytes)), w: w}, nil
			}
			req.Body, _ = req.GetBody()
		}
		return nil, nil
	}
	body, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	stream := &sendBody{ReadCloser: body, w: w}
	req.Body, req.ContentLength = stream, p.size
	if !p.kept {
		req.Header.Set("Expect", "100-continue")
		return stream, nil
	}
	req.Header["X-Idempotency-Key"] = nil
	req.GetBody = func() (io.ReadCloser, error) {
		body, err := p.open(ctx)
		if err != nil {
			return nil, err
		}
		return &sendBody{ReadCloser: body, w: w}, nil
	}
	return stream, nil
}

// follow resolves a Location.
func (r *Registry) follow(from *url.URL, location string) (*url.URL, error) {
	if location == "" || len(location) > maxLocation {
		return nil, fmt.Errorf("no usable Location")
	}
	ref, err := url.Parse(location)
	if err != nil { // its text holds the query
		return nil, fmt.Errorf("Location is no address")
	}
	u := from.ResolveReference(ref)
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("Location is no http address")
	}
	// A registry behind a proxy that ends TLS often thinks it is asked without.
	if u.Scheme == "http" && r.base.Scheme == "https" && strings.EqualFold(u.Hostname(), r.base.Hostname()) &&
		(u.Port() == "" || u.Port() == "80" || u.Port() == r.base.Port()) {
		u.Scheme, u.Host = r.base.Scheme, r.base.Host
	}
	return u, nil
}

func isRedirect(status int) bool {
	switch status {
	case 301, 302, 303, 307, 308:
		return true
	}
	return false
}

// stallOr tells our own end of a request from the transport's errors.
func stallOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); isStall(cause) {
		return cause
	}
	return err
}

func isStall(err error) bool {
	return errors.Is(err, errStalled) || errors.Is(err, errNoAnswer) || errors.Is(err, errDrip)
}
