package gcr

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// keysURL is where Google's signing keys are (accounts.google.com's
	// discovery document, jwks_uri).
	keysURL = "https://www.googleapis.com/oauth2/v3/certs"
	maxKeys = 1 << 20
	maxJWT  = 16 << 10
	// keysHold is how long keys are believed; an unknown one is looked for at
	// most each keysAgain, whatever strangers send.
	keysHold  = time.Hour
	keysAgain = time.Minute
	// keysPause follows a fetch that failed.
	keysPause = 5 * time.Second
	// skew is by how much a clock may be wrong.
	skew = time.Minute
)

// A Verifier proves Pub/Sub as sender by the token it signs deliveries with
// (Google Cloud, "Authenticate push subscriptions"): one of accounts.google.com,
// for our audience, of the subscription's service account.
type Verifier struct {
	// Audience is what the subscription is configured with, Email its service
	// account; an empty one is never matched.
	Audience, Email string
	// Client fetches the keys; nil: a client of its own.
	Client *http.Client

	mu      sync.Mutex
	keys    map[string]*rsa.PublicKey
	fetched time.Time // successfully
	tried   time.Time
}

type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Email    string `json:"email"`
	Verified bool   `json:"email_verified"`
	Expires  int64  `json:"exp"`
	Issued   int64  `json:"iat"`
}

// Verify tells whether a request carries such a token; an error: the keys
// cannot be had, so nobody knows.
func (v *Verifier) Verify(ctx context.Context, header http.Header) (bool, error) {
	scheme, token, _ := strings.Cut(header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(token) > maxJWT {
		return false, nil
	}
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return false, nil
	}
	var head struct {
		Algorithm string `json:"alg"`
		Key       string `json:"kid"`
	}
	var c claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decodePart(parts[0], &head) != nil || decodePart(parts[1], &c) != nil || head.Algorithm != "RS256" {
		return false, nil
	}
	// What costs nothing first: only tokens that say the right things make us
	// look for keys.
	now := time.Now()
	switch {
	case c.Issuer != "https://accounts.google.com" && c.Issuer != "accounts.google.com",
		v.Audience == "" || c.Audience != v.Audience,
		v.Email == "" || c.Email != v.Email || !c.Verified,
		now.After(time.Unix(c.Expires, 0).Add(skew)),
		now.Before(time.Unix(c.Issued, 0).Add(-skew)):
		return false, nil
	}
	key, err := v.key(ctx, head.Key)
	if err != nil || key == nil {
		return false, err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil, nil
}

func decodePart(part string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// key gives one of Google's by its name, nil where there is none such. Keys that
// were had once serve on while new ones cannot be had.
func (v *Verifier) key(ctx context.Context, name string) (*rsa.PublicKey, error) {
	v.mu.Lock()
	defer v.mu.Unlock() // one fetch at a time; the others wait for its keys
	now := time.Now()
	key := v.keys[name]
	if key != nil && now.Sub(v.fetched) < keysHold || now.Sub(v.tried) < keysAgain && v.keys != nil {
		return key, nil
	}
	if v.keys == nil && now.Sub(v.tried) < keysPause {
		return nil, errors.New("Google's signing keys could not be fetched a moment ago")
	}
	keys, err := v.fetch(ctx)
	v.tried = now
	if err != nil {
		if key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("fetch Google's signing keys: %w", err)
	}
	v.keys, v.fetched = keys, now
	return keys[name], nil
}

func (v *Verifier) fetch(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, keysURL, nil)
	if err != nil {
		return nil, err
	}
	client := v.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	var set struct {
		Keys []struct {
			Type     string `json:"kty"`
			Name     string `json:"kid"`
			Modulus  string `json:"n"`
			Exponent string `json:"e"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKeys)).Decode(&set); err != nil {
		return nil, err
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, k := range set.Keys {
		n, err1 := base64.RawURLEncoding.DecodeString(k.Modulus)
		e, err2 := base64.RawURLEncoding.DecodeString(k.Exponent)
		if k.Type != "RSA" || err1 != nil || err2 != nil || len(n) < 256 || len(n) > 1024 || len(e) == 0 || len(e) > 4 {
			continue
		}
		keys[k.Name] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	}
	if len(keys) == 0 {
		return nil, errors.New("no key among them")
	}
	return keys, nil
}
