package generic

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

var (
	_ oci.Locator      = (*Registry)(nil)
	_ oci.Timekeeper   = (*Registry)(nil)
	_ oci.Introspector = (*Registry)(nil)
	_ oci.Eraser       = (*Repository)(nil)
)

// Endpoint is where the registry answers, its proxy told by the environment.
func (r *Registry) Endpoint() (oci.Endpoint, error) {
	e := oci.Endpoint{Address: withPort(r.base)}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: r.base})
	if err != nil {
		return e, r.cause(err)
	}
	if proxy != nil {
		e.Proxy = withPort(proxy)
	}
	if r.spec.PlainHTTP {
		return e, nil
	}
	e.TLS, err = tlsConfig(r.spec.TLS)
	if err != nil {
		return e, err
	}
	e.TLS.ServerName = r.base.Hostname()
	return e, nil
}

// Time is the Date of an answer to `GET /v2/`.
func (r *Registry) Time(ctx context.Context) (time.Time, error) {
	a, err := r.do(ctx, call{
		op: oci.OpPing, what: "GET /v2/", method: http.MethodGet, url: r.url("/v2/"),
		limit: maxErrorBody, tries: 1, noAuth: true, challenged: true,
	})
	if err != nil {
		return time.Time{}, err
	}
	at, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return time.Time{}, nil // it does not tell
	}
	return at, nil
}

// Account is the user name of the config or docker's, once the registry has
// taken its password.
func (r *Registry) Account(ctx context.Context) (string, error) {
	auth := r.spec.Auth
	switch {
	case auth.Anonymous:
		return "anonymous", nil
	case auth.Token != nil && auth.Username == "" && auth.Password == nil:
		return "the token of the config", r.LoggedIn(ctx)
	}
	c, err := r.auth.credentials(ctx)
	switch {
	case err != nil:
		return "", err
	case c == (credentials{}):
		// Whether that will do, what is asked for next tells.
		return "anonymous: neither the config nor docker's has a login for it", nil
	}
	name := c.username
	if name == "" {
		name = "a token"
	}
	if auth.Username == "" && auth.Password == nil {
		name += " (docker's config)"
	}
	return name, r.LoggedIn(ctx)
}

// LoggedIn asks `GET /v2/` as docker login does: with the login, and a token
// for no scope where there are tokens.
func (r *Registry) LoggedIn(ctx context.Context) error {
	_, err := r.do(ctx, call{
		op: oci.OpPing, what: "GET /v2/", method: http.MethodGet, url: r.url("/v2/"), limit: maxErrorBody, tries: 2,
	})
	return err
}

// EraseManifest deletes a manifest or tag.
func (p *Repository) EraseManifest(ctx context.Context, reference string) error {
	c, err := p.manifestCall(http.MethodDelete, reference, oci.OpDelete)
	if err != nil {
		return err
	}
	return p.erase(ctx, c)
}

// EraseBlob deletes a blob from the repository.
func (p *Repository) EraseBlob(ctx context.Context, d digest.Digest) error {
	c, err := p.blobCall(http.MethodDelete, d, oci.OpDelete)
	if err != nil {
		return err
	}
	return p.erase(ctx, c)
}

func (p *Repository) erase(ctx context.Context, c call) error {
	c.header, c.limit = nil, maxErrorBody
	c.accept = []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent}
	c.scopes = []string{"repository:" + p.full + ":pull,push,delete"}
	if p.reg.ways.OwnScopes { // its realm refuses actions it does not know
		c.scopes = p.push()
	}
	_, err := p.reg.do(ctx, c)
	return err
}

// RehearseBlob begins an upload and ends it with content that is not desc's,
// which the registry has to refuse: nil says that it did so for that reason
// alone, and that the account may upload.
func (p *Repository) RehearseBlob(ctx context.Context, desc v1.Descriptor, content []byte) error {
	begun, _, err := p.start(ctx, desc, "")
	if err != nil {
		return err
	}
	u, ok := begun.(*upload)
	if !ok {
		return nil
	}
	defer func() { _ = u.Cancel(ctx) }() // most registries have ended it themselves
	to := *u.session
	q := to.Query()
	q.Set("digest", desc.Digest.String())
	to.RawQuery = q.Encode()
	c := u.call(http.MethodPut, &to)
	c.header.Set("Content-Type", "application/octet-stream")
	c.body, c.tries = &payload{bytes: content, size: int64(len(content))}, 1
	c.accept = []int{http.StatusCreated, http.StatusNoContent, http.StatusOK}
	_, err = p.reg.do(ctx, c)
	return p.rehearsed(c.what, err)
}

// RehearseManifest sends bytes under a digest that is not theirs, like RehearseBlob.
func (p *Repository) RehearseManifest(ctx context.Context, m oci.Manifest) error {
	_, err := p.PushManifest(ctx, m.Digest.String(), m)
	return p.rehearsed("PUT manifest "+p.full, err)
}

// rehearsed takes a refusal of content, and of nothing else, for success.
func (p *Repository) rehearsed(what string, err error) error {
	var refused *oci.RegistryError
	switch {
	case err == nil:
		return p.reg.mismatch(what, "the registry has taken content under a digest that is not its")
	case !errors.As(err, &refused), refused.Status < 400, refused.Status >= 500,
		errors.Is(err, oci.ErrDenied), errors.Is(err, oci.ErrRepositoryUnknown):
		return err
	}
	var throttled *oci.ThrottledError
	if errors.As(err, &throttled) {
		return err
	}
	return nil
}
