// Package generic is the client of any registry that speaks the OCI
// distribution protocol: tokens, redirects, retries, sessions and lists, with
// every answer bounded and every fault classified once. Registries with ways of
// their own build on it through Ways.
package generic

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/twinport/twinport/replicator/oci"
)

// A Secret gives a secret's present value; it is asked each time one is used,
// so that a rotated file works at once. Nil means none.
type Secret func() (string, error)

// TLSFiles are paths of PEM files; empty: the system's roots, no client certificate.
type TLSFiles struct{ CA, Cert, Key string }

// Auth is how to authenticate; all empty means docker's config and helpers.
type Auth struct {
	Username string
	Password Secret
	// Token is sent as it is, as a bearer token.
	Token     Secret
	Anonymous bool
	// AssumeRole is a role of AWS to take, for the kinds of AWS.
	AssumeRole *AssumeRole
	// Azure and Google are identities of their clouds, for the kinds of theirs.
	Azure  *Azure
	Google *Google
}

// Azure is an identity of Microsoft Entra: a service principal where there is a
// secret, else a workload or managed identity. Empty fields: the environment's.
type Azure struct {
	Tenant, Client string
	Secret         Secret
}

// Google is an identity of Google Cloud: the key of a service account, a JSON file.
type Google struct{ File string }

// AssumeRole is a role of AWS, and what its trust policy asks for.
type AssumeRole struct{ ARN, ExternalID string }

// Create is how repositories that are missing are made, for the kinds that make them.
type Create struct {
	ImmutableTags bool
	// KMS is the key that encrypts them, empty: the provider's own.
	KMS  string
	Scan bool
	// Lifecycle is a policy in the provider's own words, empty: none.
	Lifecycle string
	// Policy says who else may use them, in the provider's own words, empty: none.
	Policy string
	Labels map[string]string
}

// A Spec describes one registry of the config.
type Spec struct {
	// Name is the config's, for errors; Kind its kind, for the identity.
	Name, Kind string
	// Host is host[:port]; Prefix goes before every repository name.
	Host, Prefix string
	PlainHTTP    bool
	TLS          TLSFiles
	Auth         Auth
	// Region is the config's, for kinds whose API has one.
	Region string
	// Create makes missing repositories; nil: they are not made.
	Create *Create
	// Redirects are hosts beyond the public internet that blobs, uploads or
	// token realms may live on: CIDRs, addresses, host[:port], .suffix.
	Redirects []string
	// Pinned keeps connections to the registry on one of its addresses, where
	// the others may be replicas that do not know yet what this one has taken.
	Pinned bool
	// Idle ends a request after this long without a byte; default one minute.
	Idle time.Duration
}

// Ways are what a kind of registry does its own way.
type Ways struct {
	// Resume: sessions take chunks and tell truly what they have kept.
	Resume bool
	// Login, where set, is the provider's own identity: asked where the config
	// names no login that is sent as it is, ahead of each login's end and, with
	// anew, after the registry has refused one.
	Login func(ctx context.Context, anew bool) (Login, error)
	// Name gives a repository's name as the registry knows it, nil: as it is.
	Name func(name string) string
	// Tags, where set, lists a repository by an API of the provider's own;
	// where that gives nothing the tag list of the specification does. full is
	// the repository's name as the registry knows it.
	Tags func(ctx context.Context, r *Registry, full string) iter.Seq2[oci.Tag, error]
	// NoTag tells what a tag list holds that is no tag.
	NoTag func(name string) bool
	// Repositories, where set, lists names as the registry knows them by an API
	// of the provider's own. Where that gives nothing the catalog does;
	// ErrUnlistable says that there is none to ask.
	Repositories func(ctx context.Context, r *Registry) iter.Seq2[string, error]
	// DeleteTag, where set, removes one tag by an API of the provider's own; full
	// is as with Tags.
	DeleteTag func(ctx context.Context, r *Registry, full, tag string) error
	// Own tells hosts that are the registry's own beside its address: blobs and
	// realms may lie there on a private network. Names are lower case.
	Own func(host string) bool
	// DropsUntagged: a manifest goes with the last of its tags.
	DropsUntagged bool
	// NoCatalogScope: the realm knows no scope for the catalog.
	NoCatalogScope bool
	// OwnScopes: tokens are asked for our scopes alone, whatever a challenge names.
	OwnScopes bool
	// ThrottledReferrers: a 429 to the referrers API means that it is not served.
	ThrottledReferrers bool
	// UnsureHead: a HEAD may not find a manifest that a GET does.
	UnsureHead bool
	// Classify may correct an error's Kind and Hint; Status, Code and Message
	// are as the registry gave them.
	Classify func(op oci.Operation, err *oci.RegistryError)
}

const (
	defaultIdle = time.Minute
	userAgent   = "twinport"
)

// A Registry is one registry; it is safe for concurrent use.
type Registry struct {
	spec  Spec
	ways  Ways
	base  *url.URL
	rt    http.RoundTripper
	auth  *authorizer
	allow *allowList
	idle  time.Duration
	// noReferrers is the time (Unix nanoseconds) until which the registry is
	// taken to have no referrers API.
	noReferrers atomic.Int64
	// hasReferrers: it has answered once.
	hasReferrers atomic.Bool
	// large has a place for each large answer being read.
	large chan struct{}
}

var _ oci.Registry = (*Registry)(nil)

// New gives a client for a registry of kind oci. Every request, tokens too, goes
// through rt and carries its class of operation in its context.
func New(spec Spec, rt http.RoundTripper) (*Registry, error) {
	return NewWith(spec, rt, Ways{Resume: true})
}

// NewWith gives a client for a registry with ways of its own.
func NewWith(spec Spec, rt http.RoundTripper, ways Ways) (*Registry, error) {
	if rt == nil {
		return nil, errors.New("registry client without a transport")
	}
	host, err := canonicalHost(spec.Host, spec.PlainHTTP)
	if err != nil {
		return nil, err
	}
	spec.Host = host
	spec.Prefix = strings.Trim(spec.Prefix, "/")
	if spec.Prefix != "" {
		if err := oci.CheckRepository(spec.Prefix); err != nil {
			return nil, fmt.Errorf("prefix of registry %s: %w", spec.Name, err)
		}
	}
	if spec.Name == "" {
		spec.Name = host
	}
	if spec.Kind == "" {
		spec.Kind = "oci"
	}
	if spec.Idle <= 0 {
		spec.Idle = defaultIdle
	}
	allow, err := newAllowList(spec.Redirects)
	if err != nil {
		return nil, fmt.Errorf("redirects of registry %s: %w", spec.Name, err)
	}
	allow.own = ways.Own
	base := &url.URL{Scheme: "https", Host: host}
	if spec.PlainHTTP {
		base.Scheme = "http"
	}
	if host == "index.docker.io" { // the API of Docker Hub lives beside its name
		base.Host = "registry-1.docker.io"
	}
	r := &Registry{spec: spec, ways: ways, base: base, rt: rt, allow: allow, idle: spec.Idle, large: make(chan struct{}, largeAnswers)}
	r.auth = newAuthorizer(r, authn.DefaultKeychain)
	return r, nil
}

// canonicalHost checks a host[:port] and writes it in one way.
func canonicalHost(host string, plain bool) (string, error) {
	host = strings.ToLower(host)
	reg, err := name.NewRegistry(host, name.StrictValidation)
	if err != nil || host == "" || strings.ContainsAny(host, "/@?# ") {
		return "", fmt.Errorf("%.80q is no registry host: %w", host, oci.ErrInvalid)
	}
	host = reg.RegistryStr()
	port := ":443"
	if plain {
		port = ":80"
	}
	return strings.TrimSuffix(host, port), nil
}

// Identity is kind, host and prefix.
func (r *Registry) Identity() string {
	id := r.spec.Kind + "://" + r.spec.Host
	if r.spec.Prefix != "" {
		id += "/" + r.spec.Prefix
	}
	return id
}

// Repository gives a handle; nothing is asked of the registry.
func (r *Registry) Repository(name string) oci.Repository {
	return r.Open(name)
}

func (r *Registry) fullName(name string) string {
	if r.spec.Prefix != "" {
		name = r.spec.Prefix + "/" + name
	}
	if r.ways.Name != nil {
		name = r.ways.Name(name)
	}
	return name
}

// Ping asks `GET /v2/` once; a 401 that carries a challenge is an answer.
func (r *Registry) Ping(ctx context.Context) error {
	_, err := r.do(ctx, call{
		op: oci.OpPing, what: "GET /v2/", method: http.MethodGet, url: r.url("/v2/"),
		limit: maxErrorBody, tries: 1, noAuth: true, challenged: true,
	})
	return err
}

// url is an address of the registry's API. The path is made of checked names.
func (r *Registry) url(path string) *url.URL {
	u := *r.base
	u.Path = path
	return &u
}

// own tells whether an address is the registry itself.
func (r *Registry) own(u *url.URL) bool {
	return u.Scheme == r.base.Scheme && withPort(u) == withPort(r.base)
}

// withPort is the host in lower case with its port.
func withPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// A Repository is one repository of a registry.
type Repository struct {
	reg  *Registry
	name string // below the prefix
	full string // as the registry knows it
}

var (
	_ oci.Repository   = (*Repository)(nil)
	_ oci.RangeFetcher = (*Repository)(nil)
)

// Name is the repository's name below the registry's prefix.
func (p *Repository) Name() string { return p.name }

func (p *Repository) pull() []string { return []string{"repository:" + p.full + ":pull"} }
func (p *Repository) push() []string { return []string{"repository:" + p.full + ":pull,push"} }

// path is the API's path of something in the repository; a name that is none
// never reaches the wire.
func (p *Repository) path(rest string) (*url.URL, error) {
	if err := oci.CheckRepository(p.full); err != nil {
		return nil, err
	}
	return p.reg.url("/v2/" + p.full + "/" + rest), nil
}
