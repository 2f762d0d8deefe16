package generic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// loginAhead is how long before its end a login is asked for anew.
	loginAhead = 5 * time.Minute
	// loginTime bounds one asking.
	loginTime = time.Minute
)

// A Login is what an identity of the provider's own logs in with.
type Login struct {
	Username, Password string
	// Refresh is an OAuth2 refresh token, which the registry's realm exchanges
	// for tokens by POST; empty where the login is a password.
	Refresh string
	// Expires is when it ends; zero: not told. It is asked for anew ahead of that.
	Expires time.Time
}

// ErrNoLogin says that the provider has no identity here at all: docker's
// config and helpers are asked instead.
var ErrNoLogin = errors.New("no identity of the provider's")

// login asks the provider's identity, one asking at a time. A login that still
// lives serves on where a new one cannot be had.
func (a *authorizer) login(ctx context.Context) (credentials, error) {
	now := time.Now()
	a.mu.Lock()
	c, until, expires, anew := a.resolved, a.until, a.expires, a.anew
	a.mu.Unlock()
	if now.Before(until) {
		return c, nil
	}
	flight := a.flights.DoChan("login", func() (any, error) {
		a.mu.Lock()
		c, fresh := a.resolved, time.Now().Before(a.until) // of a flight that has just ended
		a.mu.Unlock()
		if fresh {
			return c, nil
		}
		// it serves others too, so it does not end with the one that began it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTime)
		defer cancel()
		asked := time.Now()
		l, err := a.r.ways.Login(ctx, anew)
		c = credentials{username: l.Username, password: l.Password, identity: l.Refresh}
		if errors.Is(err, ErrNoLogin) {
			docker, dockerErr := a.askKeychain(ctx)
			if dockerErr == nil && docker != (credentials{}) {
				c, err = docker, nil
			}
		}
		if err != nil {
			return credentials{}, err
		}
		a.remember(c.password, c.identity, c.bearer, c.basic())
		a.mu.Lock()
		defer a.mu.Unlock()
		a.resolved, a.expires, a.anew = c, l.Expires, false
		a.until = asked.Add(keychainTime)
		if !l.Expires.IsZero() {
			life := l.Expires.Sub(asked)
			a.until = l.Expires.Add(-min(life/4, loginAhead))
		}
		return c, nil
	})
	select {
	case <-ctx.Done():
		return credentials{}, a.r.canceled(ctx, "log in")
	case result := <-flight:
		if result.Err == nil {
			return result.Val.(credentials), nil
		}
		if !anew && now.Before(expires) {
			return c, nil
		}
		return credentials{}, fmt.Errorf("%s: log in: %w", a.r.spec.Name, result.Err)
	}
}

// distrust tells whether an exchange was refused for a login that may have
// ended before its time, so that a new one may do better.
func (a *authorizer) distrust(err error) bool {
	var refused *oci.RegistryError
	if a.r.ways.Login == nil || !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.anew || a.resolved.password == "" && a.resolved.identity == "" {
		return false
	}
	a.until, a.anew = time.Time{}, true
	return true
}
