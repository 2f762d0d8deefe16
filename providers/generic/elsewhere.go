package generic

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"

	"github.com/twinport/twinport/replicator/oci"
)

// AskAt makes a request of an API that a provider serves beside the registry's,
// with its own login or none. It goes where any redirect may go (the registry
// itself, public hosts with TLS, what the config allows) and follows none, so
// that the login reaches that host alone. Path, Query and Scopes are not used.
func (r *Registry) AskAt(ctx context.Context, at *url.URL, authorization string, q Request) (Answer, error) {
	c := call{
		op: q.Operation, what: q.What, method: q.Method, url: at, header: q.Header.Clone(),
		limit: q.Limit, accept: q.Accept, noAuth: true, stay: true, meant: true,
	}
	if c.method == "" {
		c.method = http.MethodGet
	}
	if c.header == nil {
		c.header = make(http.Header)
	}
	if authorization != "" {
		c.header.Set("Authorization", authorization)
	}
	if c.limit <= 0 {
		c.limit = maxErrorBody
	}
	if q.Body != nil {
		c.body = &payload{bytes: q.Body, size: int64(len(q.Body))}
	}
	a, err := r.do(ctx, c)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Status: a.status, Header: a.header, Body: a.bytes}, nil
}

// Address is the registry's own scheme and host.
func (r *Registry) Address() *url.URL { return r.url("") }

// Realm is where the registry has its tokens made, nil where it has none made.
func (r *Registry) Realm(ctx context.Context) (*url.URL, error) {
	for range 2 {
		r.auth.mu.Lock()
		realm := r.auth.realm
		r.auth.mu.Unlock()
		if realm != nil {
			return realm, nil
		}
		if err := r.Ping(ctx); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Credentials are the user name and password of the config or docker's, empty
// where there are none.
func (r *Registry) Credentials(ctx context.Context) (username, password string, err error) {
	c, err := r.auth.credentials(ctx)
	return c.username, c.password, err
}

// Basic is an Authorization with the Credentials, empty where there are none.
func (r *Registry) Basic(ctx context.Context) (string, error) {
	c, err := r.auth.credentials(ctx)
	return c.basic(), err
}

// Secret keeps a secret out of errors from now on.
func (r *Registry) Secret(s string) { r.auth.remember(s) }

// Pages walks a list of a provider's API that counts its pages from 1; more is
// false on the last. What moves between pages while they are read may come
// twice. A list that stands still is an error.
func Pages[T any](ctx context.Context, what string, page func(ctx context.Context, n int) (items []T, more bool, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for n := 1; n <= maxPages; n++ {
			items, more, err := page(ctx, n)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if !more {
				return
			}
			if len(items) == 0 {
				yield(none, &oci.RegistryError{Operation: what, Message: "an empty page that is not the last", Kind: oci.ErrInvalid})
				return
			}
		}
		yield(none, &oci.RegistryError{Operation: what, Message: "the list has no end", Kind: oci.ErrInvalid})
	}
}

// orElse gives a list of a provider's own where that works, else another. Which
// it is shows with the first item: a list that breaks later has broken.
func orElse[T any](ctx context.Context, own, other iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		began, refused := false, false
		for item, err := range own {
			if err != nil && !began && ctx.Err() == nil && !errors.Is(err, oci.ErrUnlistable) {
				oci.Detour(ctx, err)
				refused = true
				break
			}
			began = true
			if !yield(item, err) || err != nil {
				return
			}
		}
		if !refused {
			return
		}
		for item, err := range other {
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// TokenAs is a login where a registry takes its tokens as the password of a
// user, any or a certain one, and not as they are.
func (a Auth) TokenAs(username string) Auth {
	if a.Token != nil && !a.Anonymous {
		a.Username, a.Password, a.Token = username, a.Token, nil
	}
	return a
}

// Login is an Authorization with what the config names, a bearer token or the
// Credentials; empty where there is neither.
func (r *Registry) Login(ctx context.Context) (string, error) {
	bearer, err := r.auth.staticBearer()
	if err != nil || bearer != "" {
		return bearer, err
	}
	return r.Basic(ctx)
}
