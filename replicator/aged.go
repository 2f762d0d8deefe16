package replicator

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// A DatedTag is a tag of a source and what is known of its age; the filters
// maxAge and newest go by it. Unknown times are zero.
type DatedTag struct {
	Name   string
	Digest digest.Digest
	// ListedAt is the time the registry's listing tells for the tag, SeenAt our
	// first sight of this tag naming this digest, Created what the image's
	// config says.
	ListedAt, SeenAt, Created time.Time
}

// A TagChoice says whether a DatedTag is kept, and why not.
type TagChoice struct {
	Kept bool
	// Reason is why it is left out, empty where it is kept.
	Reason string
	// NoAge: nothing tells how old it is, so it is kept (and a person should know).
	NoAge bool
	// WantsCreated: the choice may be another once Created is known.
	WantsCreated bool
}
