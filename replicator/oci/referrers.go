package oci

import (
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// FallbackTag is the tag that lists a subject's referrers where there is no
// referrers API (distribution-spec, "Referrers Tag Schema").
func FallbackTag(subject digest.Digest) string {
	tag := subject.Algorithm().String() + "-" + subject.Encoded()
	if len(tag) > 128 { // the schema cuts the encoded part at 64
		tag = subject.Algorithm().String() + "-" + subject.Encoded()[:64]
	}
	return tag
}

// cosign's tags beside a subject (cosign, "Storage specification").
var cosignSuffixes = []string{"sig", "att", "sbom"}

// CosignTags are the tags under which cosign keeps what belongs to a subject.
func CosignTags(subject digest.Digest) []string {
	tags := make([]string, len(cosignSuffixes))
	for i, suffix := range cosignSuffixes {
		tags[i] = subject.Algorithm().String() + "-" + subject.Encoded() + "." + suffix
	}
	return tags
}

var companionGrammar = regexp.MustCompile(`^(sha256-[a-f0-9]{64}|sha512-[a-f0-9]{64}(?:[a-f0-9]{64})?)(\.(sig|att|sbom))?$`)

// CompanionSubject tells whether a tag is one that travels with a subject: a
// fallback tag (fallback true) or one of cosign's. The subject of a cut sha512
// fallback tag is not a whole digest.
func CompanionSubject(tag string) (subject digest.Digest, fallback, ok bool) {
	parts := companionGrammar.FindStringSubmatch(tag)
	if parts == nil {
		return "", false, false
	}
	return digest.Digest(strings.Replace(parts[1], "-", ":", 1)), parts[2] == "", true
}
