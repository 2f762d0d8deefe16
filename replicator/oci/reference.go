package oci

import (
	_ "crypto/sha256" // the digest algorithms we read and write
	_ "crypto/sha512"
	"fmt"
	"regexp"

	"github.com/opencontainers/go-digest"
)

// The grammars are distribution-spec's ("Pulling manifests"); 255 bytes of
// name is what distribution and most registries take.
var (
	repositoryGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// CheckRepository refuses what is no repository name (ErrInvalid).
func CheckRepository(name string) error {
	if len(name) > 255 || !repositoryGrammar.MatchString(name) {
		return fmt.Errorf("%.80q is no repository name: %w", name, ErrInvalid)
	}
	return nil
}

// CheckTag refuses what is no tag (ErrInvalid).
func CheckTag(tag string) error {
	if !tagGrammar.MatchString(tag) {
		return fmt.Errorf("%.80q is no tag: %w", tag, ErrInvalid)
	}
	return nil
}

// CheckDigest refuses what is no sha256 or sha512 digest (ErrInvalid).
func CheckDigest(d digest.Digest) error {
	if len(d) > 200 || d.Validate() != nil || (d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512) {
		return fmt.Errorf("%.80q is no sha256 or sha512 digest: %w", string(d), ErrInvalid)
	}
	return nil
}

// IsDigest tells whether a reference is a digest rather than a tag.
func IsDigest(reference string) bool {
	return CheckDigest(digest.Digest(reference)) == nil
}
