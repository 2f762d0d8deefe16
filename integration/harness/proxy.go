package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Class is what a request to a registry is about.
type Class string

// The classes of request.
const (
	Base     Class = "base"     // /v2/
	Catalog  Class = "catalog"  // /v2/_catalog
	TagList  Class = "tags"     // …/tags/list
	Tag      Class = "tag"      // …/manifests/TAG
	Manifest Class = "manifest" // …/manifests/DIGEST
	BlobOp   Class = "blob"     // …/blobs/DIGEST
	Upload   Class = "upload"   // …/blobs/uploads/…
	Referrer Class = "referrers"
	Other    Class = "other"
)

// A Request is one that passes the proxy.
type Request struct {
	Method     string
	Class      Class
	Repository string
	// Reference is the tag, digest or upload session, empty for a new upload.
	Reference string
	Query     url.Values
	// Body is there for manifest PUTs alone.
	Body []byte
	// Status is there for After alone.
	Status int
}

// Digest is the digest of a manifest PUT's body.
func (r Request) Digest() digest.Digest { return digest.FromBytes(r.Body) }

func (r Request) String() string {
	return fmt.Sprintf("%s %s %s %s", r.Method, r.Class, r.Repository, r.Reference)
}

// A Fault is something the proxy does to requests that match.
type Fault struct {
	// Match selects requests; nil selects all.
	Match func(Request) bool
	// Times is how often it happens before it is over; 0 means until removed.
	Times int

	Delay      time.Duration // wait first; with nothing else set, then pass on
	Jitter     time.Duration // wait up to so much more
	Status     int           // answer this and do not pass the request on
	RetryAfter time.Duration // with Status: that header, in whole seconds
	Drop       bool          // close the connection without an answer
	Hang       bool          // never answer
	Hold       bool          // pass on when the fault is removed, whether or not anybody still waits for the answer
	Lose       bool          // pass on, and close the connection instead of answering
	CutRequest int64         // pass on this many bytes of the request's body, then close the connection
	Stall      int64         // pass on this many bytes of the request's body, and the rest when the fault is removed
	CutAnswer  int64         // give this many bytes of the answer's body, then close the connection
	Corrupt    bool          // flip a bit of the answer's body
	CorruptUp  bool          // flip a bit of the request's body
	Truncate   bool          // leave out the last byte of the answer's body, with a length that fits
}

type activeFault struct {
	Fault
	left int
	over chan struct{} // closed once it is removed
	end  sync.Once
}

func (a *activeFault) remove() {
	a.left = 0
	a.end.Do(func() { close(a.over) })
}

// A Proxy stands in front of a registry; everything about it can be changed
// while requests pass.
type Proxy struct {
	// Addr is host:port, to be used in place of the registry's.
	Addr string

	server *http.Server
	stop   chan struct{}
	once   sync.Once

	mu     sync.Mutex
	faults []*activeFault
	before []func(Request)
	after  []func(Request)
	counts map[string]int // "METHOD class"
	tags   []Request      // successful PUTs of tags, in the order of their answers
	taken  int
}

// StartProxy starts a proxy in front of the registry at addr (host:port).
func StartProxy(t T, addr string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &Proxy{Addr: l.Addr().String(), stop: make(chan struct{}), counts: make(map[string]int)}
	target := &url.URL{Scheme: "http", Host: addr}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, IdleConnTimeout: 5 * time.Second}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Host = pr.In.Host // upload locations lead back here
		},
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0),
		ModifyResponse: p.answer,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, errCut) {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	p.server = &http.Server{Handler: p.handler(reverse), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = p.server.Serve(l) }()
	t.Cleanup(func() {
		p.once.Do(func() { close(p.stop) })
		_ = p.server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Inject adds a fault and returns what removes it.
func (p *Proxy) Inject(f Fault) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &activeFault{Fault: f, left: f.Times, over: make(chan struct{})}
	if f.Times == 0 {
		a.left = -1
	}
	p.faults = append(p.faults, a)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		a.remove()
	}
}

// Clear removes all faults.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.faults {
		a.remove()
	}
	p.faults = nil
}

// Taken is how many requests met a fault.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Before calls f before each request is passed on; the request waits for it.
func (p *Proxy) Before(f func(Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = append(p.before, f)
}

// After calls f when the registry has answered and before the answer is passed on.
func (p *Proxy) After(f func(Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = append(p.after, f)
}

// Counts are the requests since the start or the last Reset, by "METHOD class".
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]int, len(p.counts))
	for k, v := range p.counts {
		out[k] = v
	}
	return out
}

// Total is the sum of Counts.
func (p *Proxy) Total() int {
	n := 0
	for _, v := range p.Counts() {
		n += v
	}
	return n
}

// TagWrites are the PUTs of tags the registry accepted, in order, but for
// companions' tags (sha256-…).
func (p *Proxy) TagWrites() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Request
	for _, r := range p.tags {
		if !companion.MatchString(r.Reference) {
			out = append(out, r)
		}
	}
	return out
}

// Reset forgets counts and tag writes.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.counts)
	p.tags = nil
}

var (
	companion = regexp.MustCompile(`^sha(256|512)-[0-9a-f]{32,}`)
	routes    = []struct {
		class Class
		re    *regexp.Regexp
	}{
		{Upload, regexp.MustCompile(`^/v2/(.+)/blobs/uploads/?(.*)$`)},
		{BlobOp, regexp.MustCompile(`^/v2/(.+)/blobs/(.+)$`)},
		{Manifest, regexp.MustCompile(`^/v2/(.+)/manifests/(.+)$`)},
		{TagList, regexp.MustCompile(`^/v2/(.+)/tags/(list)$`)},
		{Referrer, regexp.MustCompile(`^/v2/(.+)/referrers/(.+)$`)},
	}
)

func classify(r *http.Request) Request {
	out := Request{Method: r.Method, Class: Other, Query: r.URL.Query()}
	switch r.URL.Path {
	case "/v2/", "/v2":
		out.Class = Base
		return out
	case "/v2/_catalog":
		out.Class = Catalog
		return out
	}
	for _, route := range routes {
		if m := route.re.FindStringSubmatch(r.URL.Path); m != nil {
			out.Class, out.Repository, out.Reference = route.class, m[1], m[2]
			if out.Class == Manifest {
				if _, err := digest.Parse(out.Reference); err != nil {
					out.Class = Tag
				}
			}
			break
		}
	}
	return out
}

type contextKey struct{}

type passing struct {
	Request
	fault *activeFault
}

func (p *Proxy) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := classify(r)
		if r.Method == http.MethodPut && (req.Class == Tag || req.Class == Manifest) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			req.Body = body
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		p.mu.Lock()
		p.counts[req.Method+" "+string(req.Class)]++
		before := p.before
		fault := p.take(req)
		p.mu.Unlock()
		for _, f := range before {
			f(req)
		}
		if fault != nil && p.meet(w, r, fault) {
			return
		}
		ctx := r.Context()
		if fault != nil && fault.Hold {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
			defer cancel()
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, contextKey{}, &passing{req, fault})))
	})
}

// take is the first fault that matches, counted; the lock is held.
func (p *Proxy) take(req Request) *activeFault {
	for _, f := range p.faults {
		if f.left == 0 || (f.Match != nil && !f.Match(req)) {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		p.taken++
		return f
	}
	return nil
}

// meet does what a fault does before the registry is asked, and tells whether
// that was all.
func (p *Proxy) meet(w http.ResponseWriter, r *http.Request, f *activeFault) (done bool) {
	wait := f.Delay
	if f.Jitter > 0 {
		wait += rand.N(f.Jitter)
	}
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		case <-p.stop:
		}
	}
	switch {
	case f.Hold:
		select {
		case <-f.over:
		case <-p.stop:
		}
	case f.Hang:
		select {
		case <-r.Context().Done():
		case <-p.stop:
		}
		panic(http.ErrAbortHandler)
	case f.Drop:
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter/time.Second)))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		fmt.Fprintf(w, `{"errors":[{"code":"UNKNOWN","message":"injected %d"}]}`, f.Status)
		return true
	case f.CutRequest > 0:
		r.Body = &cutReader{ReadCloser: r.Body, left: f.CutRequest}
	case f.Stall > 0:
		r.Body = &stallReader{ReadCloser: r.Body, left: f.Stall, over: []<-chan struct{}{f.over, p.stop, r.Context().Done()}}
	case f.CorruptUp:
		r.Body = &flipReader{ReadCloser: r.Body}
	}
	return false
}

func (p *Proxy) answer(resp *http.Response) error {
	req, ok := resp.Request.Context().Value(contextKey{}).(*passing)
	if !ok {
		return nil
	}
	req.Status = resp.StatusCode
	p.mu.Lock()
	if req.Method == http.MethodPut && req.Class == Tag && resp.StatusCode == http.StatusCreated {
		p.tags = append(p.tags, req.Request)
	}
	after := p.after
	p.mu.Unlock()
	for _, f := range after {
		f(req.Request)
	}
	f := req.fault
	if f == nil || resp.StatusCode >= 300 {
		return nil
	}
	switch {
	case f.Lose:
		return errCut
	case f.CutAnswer > 0:
		resp.Body = &cutReader{ReadCloser: resp.Body, left: f.CutAnswer}
	case f.Corrupt:
		resp.Body = &flipReader{ReadCloser: resp.Body}
	case f.Truncate && resp.ContentLength > 0:
		resp.ContentLength--
		resp.Header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, resp.ContentLength), resp.Body}
	}
	return nil
}

// Is selects requests by method and class, any where empty.
func Is(method string, classes ...Class) func(Request) bool {
	return func(r Request) bool {
		if method != "" && r.Method != method {
			return false
		}
		for _, c := range classes {
			if r.Class == c {
				return true
			}
		}
		return len(classes) == 0
	}
}
