package generic

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/twinport/twinport/replicator/oci"
)

// A Request is one of an API that a registry has beside the distribution
// specification's, at its own address.
type Request struct {
	Operation oci.Operation
	// What is told in errors: method and object, no query.
	What   string
	Method string
	// Path begins with a slash and is made of checked names.
	Path  string
	Query url.Values
	// Scopes are what a token has to allow.
	Scopes []string
	// Header and Body are sent with it; the body is held and may be sent again.
	Header http.Header
	Body   []byte
	// Limit bounds the answer in bytes; 0: 64 KiB.
	Limit int64
	// Stream leaves the answer's body unread; Limit does not bound it then.
	Stream bool
	// Accept are the statuses that count as success; nil: 200.
	Accept []int
}

// An Answer is a success.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// Next is the query of the next page where a Link names one, else nil.
	Next url.Values
	// Stream is the body instead of Body, where it was asked for: whoever asks
	// reads it, within bounds of its own, and closes it.
	Stream io.ReadCloser
}

// Ask makes a request as the client makes its own: logged in, within limits,
// again where that may help. Its errors are classified.
func (r *Registry) Ask(ctx context.Context, q Request) (Answer, error) {
	u := r.url(q.Path)
	u.RawQuery = q.Query.Encode()
	c := call{
		op: q.Operation, what: q.What, method: q.Method, url: u, header: q.Header, scopes: q.Scopes,
		limit: q.Limit, accept: q.Accept,
	}
	switch {
	case q.Stream:
		c.limit = 0
	case c.limit <= 0:
		c.limit = maxErrorBody
	}
	if q.Body != nil {
		c.body = &payload{bytes: q.Body, size: int64(len(q.Body))}
	}
	a, err := r.do(ctx, c)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Status: a.status, Header: a.header, Body: a.bytes, Stream: a.body}
	next, err := nextPage(a.header.Values("Link"), a.url, u)
	switch {
	case err != nil:
		if a.body != nil {
			_ = a.body.Close() // nobody reads it
		}
		return Answer{}, r.senseless(q.What, a.status, err.Error())
	case next != nil:
		answer.Next = next.Query()
	}
	return answer, nil
}

// Senseless is an answer that makes no sense, as an error.
func (r *Registry) Senseless(what, message string) error { return r.senseless(what, 0, message) }

// FullName is a repository's name as the registry knows it, its prefix included.
func (r *Registry) FullName(name string) string { return r.fullName(name) }

// Prefix goes before every name of a repository; empty: none.
func (r *Registry) Prefix() string { return r.spec.Prefix }

// Open is Repository by its own type, for kinds that build on it.
func (r *Registry) Open(name string) *Repository {
	return &Repository{reg: r, name: name, full: r.fullName(name)}
}

// FullName is the repository's name as the registry knows it.
func (p *Repository) FullName() string { return p.full }
