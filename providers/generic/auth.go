package generic

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/singleflight"

	"github.com/twinport/twinport/replicator/oci"
)

// keychainTime is how long docker's config or a helper is believed; a 401 asks anew.
const keychainTime = 5 * time.Minute

// credentials are what one exchange or request uses.
type credentials struct {
	username, password string
	identity           string // an OAuth2 refresh token
	bearer             string // sent as it is
}

func (c credentials) basic() string {
	if c.username == "" && c.password == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// An authorizer knows how a registry wants to be asked: not at all, Basic, or
// with tokens, one per set of scopes (distribution's token specification).
type authorizer struct {
	r        *Registry
	keychain authn.Keychain
	flights  singleflight.Group

	mu       sync.Mutex
	scheme   string // "", "basic" or "bearer": as the last challenge said
	realm    *url.URL
	service  string
	tokens   map[string]*token
	extra    map[string][]string // scopes a challenge asked beyond ours, by our key
	resolved credentials         // of the keychain
	until    time.Time
	expires  time.Time // of the provider's login
	anew     bool      // the provider's login was refused
	secrets  []string  // lately used, for redact
}

func newAuthorizer(r *Registry, keychain authn.Keychain) *authorizer {
	return &authorizer{r: r, keychain: keychain, tokens: make(map[string]*token), extra: make(map[string][]string)}
}

// A grant is what a request is sent with.
type grant struct {
	header string // of Authorization, empty: none
	token  *token
}

// grant gives what a request for scopes needs, as far as the registry has said
// that it needs anything.
func (a *authorizer) grant(ctx context.Context, scopes []string) (grant, error) {
	a.mu.Lock()
	scheme := a.scheme
	a.mu.Unlock()
	switch scheme {
	case "basic":
		c, err := a.credentials(ctx)
		return grant{header: c.basic()}, err
	case "bearer":
		c, err := a.staticBearer()
		if err != nil || c != "" {
			return grant{header: c}, err
		}
		t, err := a.token(ctx, scopes)
		if err != nil {
			return grant{}, err
		}
		return grant{header: "Bearer " + t.value, token: t}, nil
	}
	return grant{}, nil
}

// learn takes a challenge as how the registry is to be asked from now on.
func (a *authorizer) learn(header http.Header) (challenge, bool) {
	var chosen challenge
	for _, c := range parseChallenges(header.Values("WWW-Authenticate")) {
		if c.scheme == "bearer" && (c.params["realm"] != "" || a.r.spec.Auth.Token != nil) {
			chosen = c
			break
		}
		if c.scheme == "basic" && chosen.scheme == "" {
			chosen = c
		}
	}
	if chosen.scheme == "" {
		return chosen, false
	}
	var realm *url.URL
	if chosen.scheme == "bearer" && chosen.params["realm"] != "" {
		u, err := a.r.follow(a.r.base, chosen.params["realm"])
		if err != nil {
			return chosen, false
		}
		realm = u
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := (realm == nil) != (a.realm == nil) || realm != nil && realm.String() != a.realm.String()
	if changed || chosen.params["service"] != a.service {
		clear(a.tokens)
	}
	a.scheme, a.realm, a.service = chosen.scheme, realm, chosen.params["service"]
	return chosen, true
}

// refused learns from a 401 and tells whether asking again, with what it now
// knows, can help.
func (a *authorizer) refused(ctx context.Context, header http.Header, scopes []string, sent grant) (bool, error) {
	chosen, ok := a.learn(header)
	if !ok {
		return false, nil
	}
	a.mu.Lock()
	switch {
	case a.r.ways.Login == nil:
		a.until = time.Time{}
	case chosen.scheme == "basic" && sent.header != "" && sent.header == a.resolved.basic():
		a.until, a.anew = time.Time{}, true
	}
	if chosen.scheme == "bearer" {
		key := scopeKey(scopes)
		if sent.token != nil {
			for k, t := range a.tokens {
				if t == sent.token {
					delete(a.tokens, k)
				}
			}
			// what ended one may have ended the other that find would give instead
			if repository, ok := strings.CutSuffix(key, ":pull"); ok {
				delete(a.tokens, repository+":pull,push")
			}
		}
		if more := beyond(scopes, chosen.params["scope"]); len(more) > 0 && len(a.extra) < maxTokens && !a.r.ways.OwnScopes {
			a.extra[key] = more
		}
	}
	a.mu.Unlock()
	if chosen.scheme == "bearer" {
		static, err := a.staticBearer()
		return static == "" || static != sent.header, err
	}
	c, err := a.credentials(ctx)
	if err != nil {
		return false, err
	}
	return c.basic() != "" && c.basic() != sent.header, nil
}

// beyond gives the scopes a challenge asks for that ours do not hold.
func beyond(scopes []string, asked string) []string {
	var more []string
	for _, s := range strings.Fields(asked) {
		if len(more) < 8 && !slices.ContainsFunc(scopes, func(ours string) bool { return covers(ours, s) }) {
			more = append(more, s)
		}
	}
	return more
}

// covers tells whether one scope (type:name:actions) allows another.
func covers(have, want string) bool {
	i, j := strings.LastIndex(have, ":"), strings.LastIndex(want, ":")
	if i < 0 || j < 0 || have[:i] != want[:j] {
		return have == want
	}
	actions := strings.Split(have[i+1:], ",")
	for _, action := range strings.Split(want[j+1:], ",") {
		if !slices.Contains(actions, action) {
			return false
		}
	}
	return true
}

// staticBearer is the config's own token as a header.
func (a *authorizer) staticBearer() (string, error) {
	if a.r.spec.Auth.Token == nil || a.r.spec.Auth.Anonymous {
		return "", nil
	}
	t, err := a.secret("token", a.r.spec.Auth.Token)
	if err != nil {
		return "", err
	}
	return "Bearer " + t, nil
}

func (a *authorizer) secret(what string, s Secret) (string, error) {
	if s == nil {
		return "", nil
	}
	value, err := s()
	if err != nil {
		return "", fmt.Errorf("%s: read auth %s: %w", a.r.spec.Name, what, err)
	}
	value = strings.TrimRight(value, "\r\n") // as files end
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", fmt.Errorf("%s: auth %s holds a line end or control character: %w", a.r.spec.Name, what, oci.ErrDenied)
	}
	a.remember(value)
	return value, nil
}

// credentials gives those of the config, else docker's; none at all is no error.
func (a *authorizer) credentials(ctx context.Context) (credentials, error) {
	auth := a.r.spec.Auth
	switch {
	case auth.Anonymous:
		return credentials{}, nil
	case auth.Username != "" || auth.Password != nil:
		password, err := a.secret("password", auth.Password)
		if err == nil {
			a.remember(credentials{username: auth.Username, password: password}.basic())
		}
		return credentials{username: auth.Username, password: password}, err
	case auth.Token != nil:
		return credentials{}, nil
	case a.r.ways.Login != nil:
		return a.login(ctx)
	}
	a.mu.Lock()
	c, fresh := a.resolved, time.Now().Before(a.until)
	a.mu.Unlock()
	if fresh {
		return c, nil
	}
	c, err := a.askKeychain(ctx)
	if err != nil {
		return credentials{}, fmt.Errorf("%s: docker credentials: %w", a.r.spec.Name, a.r.cause(err))
	}
	a.remember(c.password, c.identity, c.bearer, c.basic())
	a.mu.Lock()
	a.resolved, a.until = c, time.Now().Add(keychainTime)
	a.mu.Unlock()
	return c, nil
}

func (a *authorizer) askKeychain(ctx context.Context) (credentials, error) {
	var resource authn.Resource
	resource, err := name.NewRegistry(a.r.spec.Host)
	if a.r.spec.Prefix != "" {
		resource, err = name.NewRepository(a.r.spec.Host + "/" + a.r.spec.Prefix)
	}
	if err != nil {
		return credentials{}, errors.New("address is no name")
	}
	authenticator, err := authn.Resolve(ctx, a.keychain, resource)
	if err != nil {
		return credentials{}, err
	}
	config, err := authn.Authorization(ctx, authenticator)
	if err != nil {
		return credentials{}, err
	}
	c := credentials{username: config.Username, password: config.Password, identity: config.IdentityToken, bearer: config.RegistryToken}
	if c.username == "" && c.password == "" && config.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(config.Auth); err == nil {
			c.username, c.password, _ = strings.Cut(string(raw), ":")
		}
	}
	if c.username == "<token>" { // docker's mark for an identity token
		if c.identity == "" {
			c.identity = c.password
		}
		c.username, c.password = "", ""
	}
	return c, nil
}

// maxSecrets bounds what redact looks for.
const maxSecrets = 64

// remember keeps secrets in use, so that no error shows one a registry echoes.
func (a *authorizer) remember(secrets ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range secrets {
		s = strings.TrimPrefix(s, "Basic ")
		if len(s) < 4 || slices.Contains(a.secrets, s) {
			continue
		}
		if len(a.secrets) >= maxSecrets {
			a.secrets = slices.Delete(a.secrets, 0, 1)
		}
		a.secrets = append(a.secrets, s)
	}
}

// redact takes out secrets that were lately used.
func (a *authorizer) redact(s string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, secret := range a.secrets {
		s = strings.ReplaceAll(s, secret, "<redacted>")
		if escaped := url.QueryEscape(secret); escaped != secret {
			s = strings.ReplaceAll(s, escaped, "<redacted>")
		}
	}
	return s
}
