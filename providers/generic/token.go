package generic

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// defaultExpiry is the token specification's where expires_in is missing.
	defaultExpiry = 60 * time.Second
	maxExpiry     = 24 * time.Hour
	maxTokenBody  = 1 << 20
	maxToken      = 64 << 10
	// exchangeTime bounds one exchange with its retries.
	exchangeTime = time.Minute
	// maxTokens bounds the tokens kept; the oldest ends go first.
	maxTokens = 4096
)

// A token lets a set of scopes in until it expires.
type token struct {
	value   string
	refresh time.Time // from here on a new one is fetched
	expires time.Time
}

func scopeKey(scopes []string) string { return strings.Join(scopes, " ") }

// token gives a token for scopes, one exchange at a time for each set. Ahead of
// its end a token is fetched anew; should that fail while the old one still
// lives, the old one serves.
func (a *authorizer) token(ctx context.Context, scopes []string) (*token, error) {
	key := scopeKey(scopes)
	now := time.Now()
	a.mu.Lock()
	t := a.find(key, scopes, now)
	asked := append(slices.Clone(scopes), a.extra[key]...)
	realm, service := a.realm, a.service
	a.mu.Unlock()
	if t != nil && now.Before(t.refresh) {
		return t, nil
	}
	if realm == nil {
		return nil, &oci.RegistryError{Registry: a.r.spec.Name, Operation: "token", Message: "challenge without a realm", Kind: oci.ErrDenied}
	}
	flight := a.flights.DoChan(realm.String()+" "+service+" "+key, func() (any, error) {
		a.mu.Lock()
		newer := a.find(key, scopes, time.Now()) // of a flight that has just ended
		a.mu.Unlock()
		if newer != nil && time.Now().Before(newer.refresh) {
			return newer, nil
		}
		// it serves others too, so it does not end with the one that began it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTime)
		defer cancel()
		got, err := a.exchange(ctx, realm, service, asked)
		if a.distrust(err) {
			got, err = a.exchange(ctx, realm, service, asked)
		}
		if err == nil {
			a.keep(key, got)
		}
		return got, err
	})
	select {
	case <-ctx.Done():
		return nil, a.r.canceled(ctx, "token")
	case result := <-flight:
		if result.Err != nil {
			if t != nil && time.Now().Before(t.expires) {
				return t, nil
			}
			return nil, result.Err
		}
		return result.Val.(*token), nil
	}
}

// find gives a live token for exactly these scopes, or one that allows more in
// the same repository; the caller holds mu.
func (a *authorizer) find(key string, scopes []string, now time.Time) *token {
	if t := a.tokens[key]; t != nil && now.Before(t.expires) {
		return t
	}
	if repository, ok := strings.CutSuffix(key, ":pull"); ok && len(scopes) == 1 {
		if t := a.tokens[repository+":pull,push"]; t != nil && now.Before(t.refresh) {
			return t
		}
	}
	return nil
}

func (a *authorizer) keep(key string, t *token) {
	a.remember(t.value)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.tokens) >= maxTokens {
		now := time.Now()
		for k, old := range a.tokens {
			if now.After(old.expires) {
				delete(a.tokens, k)
			}
		}
		if len(a.tokens) >= maxTokens {
			clear(a.tokens)
		}
	}
	a.tokens[key] = t
}

// exchange asks the realm for a token: by GET with Basic or anonymously, or by
// OAuth2's POST where there is an identity token.
func (a *authorizer) exchange(ctx context.Context, realm *url.URL, service string, scopes []string) (*token, error) {
	c, err := a.credentials(ctx)
	if err != nil {
		return nil, err
	}
	if c.bearer != "" {
		return newToken(c.bearer, keychainTime, time.Now()), nil
	}
	if !a.r.own(realm) {
		if _, err := a.r.allow.check(ctx, realm); err != nil {
			e := &oci.RegistryError{
				Registry: a.r.spec.Name, Operation: "token", Kind: sentinel(err),
				Cause: fmt.Errorf("realm: %w", a.r.cause(err)),
			}
			if errors.Is(err, oci.ErrDenied) {
				e.Hint = hintAllow
			}
			return nil, e
		}
	}
	if c.identity != "" {
		t, err := a.postToken(ctx, realm, service, scopes, c)
		var answered *oci.RegistryError
		if err == nil || c.basic() == "" || !errors.As(err, &answered) || answered.Status != 404 && answered.Status != 405 {
			return t, err
		}
	}
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range scopes {
		q.Add("scope", s)
	}
	header := http.Header{}
	if basic := c.basic(); basic != "" {
		header.Set("Authorization", basic)
		if c.username != "" {
			q.Set("account", c.username)
		}
	}
	u.RawQuery = q.Encode()
	return a.ask(ctx, call{method: http.MethodGet, url: &u, header: header})
}

func (a *authorizer) postToken(ctx context.Context, realm *url.URL, service string, scopes []string, c credentials) (*token, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {c.identity}, "client_id": {userAgent},
		"service": {service}, "scope": {strings.Join(scopes, " ")},
	}
	return a.ask(ctx, call{
		method: http.MethodPost, url: realm, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		body: &payload{bytes: []byte(form.Encode())},
	})
}

func (a *authorizer) ask(ctx context.Context, c call) (*token, error) {
	c.op, c.what, c.limit, c.noAuth, c.stay = oci.OpToken, "token", maxTokenBody, true, true
	asked := time.Now()
	answer, err := a.r.do(ctx, c)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if err := json.Unmarshal(answer.bytes, &doc); err != nil {
		return nil, a.r.senseless("token", answer.status, "the answer is no token")
	}
	value := doc.Token
	if value == "" {
		value = doc.AccessToken
	}
	if value == "" || len(value) > maxToken || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return nil, a.r.senseless("token", answer.status, "the answer holds no usable token")
	}
	expiry := defaultExpiry
	if life, ok := JWTLife(value, asked); ok {
		expiry = life
	}
	switch seconds := doc.ExpiresIn; {
	case seconds > maxExpiry.Seconds():
		expiry = maxExpiry
	case seconds > 0:
		expiry = time.Duration(seconds * float64(time.Second))
	}
	return newToken(value, expiry, asked), nil
}

// newToken counts from the asking and is refreshed a quarter of its life, at
// most a minute, before its end.
func newToken(value string, expiry time.Duration, asked time.Time) *token {
	return &token{value: value, expires: asked.Add(expiry), refresh: asked.Add(expiry - min(expiry/4, time.Minute))}
}

// JWTLife is the life that a token which is a JWT tells of itself: from its
// issue where it says when, so that a wrong clock of ours does not matter, else
// from now. Nobody checks the signature: a token's own registry reads it.
func JWTLife(token string, now time.Time) (time.Duration, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var claims struct {
		Expires float64 `json:"exp"`
		Issued  float64 `json:"iat"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return 0, false
	}
	from := claims.Issued
	if from <= 0 {
		from = float64(now.Unix())
	}
	if life := claims.Expires - from; life > 0 {
		return time.Duration(min(life, maxExpiry.Seconds()) * float64(time.Second)), true
	}
	return 0, false
}
