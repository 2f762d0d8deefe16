package intake

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinport/twinport/replicator"
)

// maxProofs bounds how many values of one header or parameter are looked at.
const maxProofs = 8

// signatureHeaders carry the HMAC-SHA256 of the body in hex, with or without
// `sha256=` before it (GitHub, Gitea, Forgejo, Gogs).
var signatureHeaders = []string{"X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature", "X-Gogs-Signature"}

// A proof is what a request has to show for itself.
type proof struct {
	given      bool                   // a secret was shown, or none is asked for
	signatures []replicator.Signature // to hold against the body
	secrets    []string
}

// prove looks at what a request shows before its body is read. An error: no
// secret can be read, so nobody can be let in.
func (registry Registry) prove(r *http.Request) (proof, error) {
	if len(registry.Secrets) == 0 {
		return proof{given: registry.Verify == nil}, nil
	}
	var p proof
	var faults []error
	for n, read := range registry.Secrets {
		secret, err := read()
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("webhook secret %d of %s: %w", n+1, registry.Name, err))
		case secret != "":
			p.secrets = append(p.secrets, secret)
		}
	}
	if len(p.secrets) == 0 {
		return proof{}, errors.Join(append(faults, fmt.Errorf("%s has no usable webhook secret", registry.Name))...)
	}
	var own replicator.Shown
	if prover, ok := registry.Decoder.(Prover); ok {
		own = prover.Shows(r.Header)
	}
	for _, shown := range append(shownSecrets(r), own.Secrets[:min(len(own.Secrets), maxProofs)]...) {
		for _, secret := range p.secrets {
			// No early end: how long it takes tells nothing.
			if equal(shown, secret) {
				p.given = true
			}
		}
	}
	p.signatures = append(shownSignatures(r.Header), own.Signatures[:min(len(own.Signatures), maxProofs)]...)
	return p, nil
}

// signed tells whether a signature is one of the body.
func (p proof) signed(body []byte) bool {
	ok := false
	for _, secret := range p.secrets {
		sums := make(map[bool][]byte, 2)
		for _, shown := range p.signatures {
			if sums[shown.SHA1] == nil {
				sums[shown.SHA1] = sum(shown.SHA1, secret, body)
			}
			if hmac.Equal(sums[shown.SHA1], shown.MAC) {
				ok = true
			}
		}
	}
	return ok
}

func sum(weak bool, secret string, body []byte) []byte {
	with := sha256.New
	if weak { // as a MAC it is not broken
		with = sha1.New
	}
	mac := hmac.New(with, []byte(secret))
	mac.Write(body)
	return mac.Sum(nil)
}

// equal compares in a time that depends on neither content nor, by hashing, on length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// shownSecrets are all that may be the secret: an Authorization as it stands,
// its bearer token, its basic password, and the parameter key.
func shownSecrets(r *http.Request) []string {
	var shown []string
	for _, value := range first(r.Header.Values("Authorization")) {
		shown = append(shown, value)
		scheme, rest, _ := strings.Cut(value, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case strings.EqualFold(scheme, "Bearer"):
			shown = append(shown, rest)
		case strings.EqualFold(scheme, "Basic"):
			decoded, err := base64.StdEncoding.DecodeString(rest)
			if _, password, ok := strings.Cut(string(decoded), ":"); ok && err == nil {
				shown = append(shown, password)
			}
		}
	}
	if query, err := url.ParseQuery(r.URL.RawQuery); err == nil {
		shown = append(shown, first(query["key"])...)
	}
	return shown
}

func shownSignatures(header http.Header) []replicator.Signature {
	var signatures []replicator.Signature
	for _, name := range signatureHeaders {
		for _, value := range first(header.Values(name)) {
			mac, err := hex.DecodeString(strings.TrimPrefix(value, "sha256="))
			if err == nil && len(mac) == sha256.Size {
				signatures = append(signatures, replicator.Signature{MAC: mac})
			}
		}
	}
	return signatures
}

func first(values []string) []string { return values[:min(len(values), maxProofs)] }
