// Package sweep compares what a route's source holds with what its destinations
// hold, and emits the differences: the events that webhooks lost. It lists,
// asks by HEAD and reads the journal's records; it writes nothing anywhere.
//
// A tag in sync costs one HEAD at the source (none where the source's listing
// tells digests) and nothing at a destination but its share of the listing, as
// long as a record says that it was proven not long ago.
package sweep

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Rules are what a sweep asks of the routes.
type Rules interface {
	// Selects and SelectsTag tell whether a route wants a repository or tag by
	// its name, and if not, why.
	Selects(route, repository string) (bool, string)
	SelectsTag(route, tag string) (bool, string)
	// Destination is the repository's name at the destinations.
	Destination(route, repository string) (string, error)
	// LiteralRepositories are the repositories of a route that names them all.
	LiteralRepositories(route string) ([]string, bool)
	// Ages tells whether SelectTags is to be asked, and how many of the newest
	// tags it keeps per repository (0: it judges each tag by itself).
	Ages(route string) (needed bool, newest int)
	// SelectTags chooses by age, one choice per tag. The newest may be chosen
	// in portions.
	SelectTags(route string, tags []replicator.DatedTag, now time.Time) []replicator.TagChoice
}

// Records are what is proven at destinations.
type Records interface {
	// Records gives the trusted records of tags (not those of digests wanted
	// for themselves) in one repository, by tag in byte order, those after a
	// tag, at most limit of them; fewer than limit are the last.
	Records(ctx context.Context, identity, repository, after string, limit int) ([]replicator.Record, error)
}

// A Destination is one of the route's.
type Destination struct {
	Name     string
	Registry oci.Registry
}

// A Request says what to compare. Callbacks are never called at once, but may be
// called while others of the sweep's requests run.
type Request struct {
	Route      string
	SourceName string
	Source     oci.Registry
	// Destinations may be some of the route's.
	Destinations []Destination
	Rules        Rules
	Records      Records
	// FirstSeen tells when we first knew a source tag to name a digest, zero if
	// never; nil: nobody knows. Asked only for routes that choose by age.
	FirstSeen func(ctx context.Context, source replicator.Place, tag string, d digest.Digest) (time.Time, error)
	// Proof is the age at which a proof must be renewed (0: never). Each tag
	// has its own moment between half of it and all of it, so that every sweep
	// renews a share.
	Proof time.Duration
	// ReferrersEvery is how often each proven root's referrers are to be asked
	// for again, spread like Proof; 0: never, for routes without referrers and
	// sources whose listing shows them.
	ReferrersEvery time.Duration
	// Full believes no record: every tag is a difference.
	Full bool
	// Present asks a destination by HEAD what a tag names where its listing does
	// not tell and the tag is not in sync, so that Difference.Present is known.
	// For plans; a worker finds out by itself.
	Present bool
	// Unreached compares the tags of a destination that does not answer with its
	// records alone, so that what it lacks can wait for it. It has failed all
	// the same.
	Unreached bool
	// Unresolved leaves Difference.Digest empty for tags that no destination has
	// and whose listing does not tell it: whoever copies them asks anyway.
	Unresolved bool
	// Companions is told, for each source repository listed whole, which of its
	// tags travel with a subject (at most maxCompanions of them; a repository
	// with more is not told of). Optional.
	Companions func(repository string, tags []string)
	// Departed is told, for each source repository and destination, what is on
	// record there and the source's listing lacks, as soon as that was seen
	// whole; the last call of a repository has Last. Optional.
	Departed func(ctx context.Context, departed Departed) error
	// GivenUp tells whether what belongs to a subject was tried there before, and
	// the subject did not come. Optional.
	GivenUp func(destination replicator.Place, subject digest.Digest) bool
	// Listed is told of each tag that the source lists and the route wants, and
	// InSync of those that a destination (its name in the config) has as they
	// are to be. Unlike the other callbacks they may be called at once. Optional.
	Listed func(repository, tag string)
	InSync func(destination, repository, tag string)
	// OnlyRepository and OnlyTag limit the sweep to one source repository, or
	// one tag of it, which nothing but its name can then leave out.
	OnlyRepository, OnlyTag string
	// Cursor is the repository after which an interrupted sweep goes on. A
	// catalog that is not in byte order has no use for it and is swept whole.
	Cursor string
	// Emit takes differences, at most 256 at a time. It may block, which holds
	// the sweep up; its error ends the sweep.
	Emit func(ctx context.Context, differences []Difference) error
	// Skip is told what is left out and why; optional.
	Skip func(Skipped)
	// Void is told at once of each repository whose destination lacks what a
	// record calls proven there; optional, Result.Voided has the same.
	Void func(ctx context.Context, destination replicator.Place) error
	// Checkpoint is told how far the sweep has come: up to this repository all
	// is compared and emitted. It stops at the first failure, so that going on
	// from the cursor skips nothing that failed. Optional.
	Checkpoint func(ctx context.Context, cursor string) error
	// Concurrency is how many repositories are compared side by side; 0 means 16:
	// how many requests that makes is for the registries' limits to say.
	Concurrency int
	// Warm is told that about n requests at once are going to be sent to a
	// registry, by name, so that connections may be opened ahead; it must not
	// block. Optional.
	Warm func(registry string, n int)
	// TempDir holds what a listing of more than some thousand tags spills;
	// empty: the system's. Files have no name there.
	TempDir string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Difference is a tag of the source that a destination lacks, or has
// otherwise, or whose proof is to be renewed.
type Difference struct {
	// Destination is the registry's name in the config.
	Destination           string
	SourceRepository      string
	DestinationRepository string
	Tag                   string
	// Digest is the source's, empty only where it could be left unasked: for
	// companion tags whose proof is due.
	Digest digest.Digest
	// Present is the destination's, empty where it is absent or unknown.
	Present digest.Digest
	// PushedAt is what the source's listing tells, else zero.
	PushedAt time.Time
	Reason   Reason
}

// A Reason is why a tag is a difference.
type Reason string

// The reasons there are.
const (
	Missing        Reason = "missing"
	LacksRepo      Reason = "destination lacks the repository"
	Differs        Reason = "differs"
	NoRecord       Reason = "no record"
	Unproven       Reason = "unproven"
	ProofDue       Reason = "proof due"
	ReferrersDue   Reason = "referrers due"
	BelievedByNone Reason = "full"
	Unreached      Reason = "destination does not answer"
)

// A Skipped is a repository (Tag empty) or tag that is left out, and why.
type Skipped struct {
	Repository, Tag string
	Digest          digest.Digest // empty where unknown
	Reason          string
}

// A Result says what a sweep has seen.
type Result struct {
	// Repositories and Tags are the source's that were compared; InSync and
	// Emitted count (tag, destination) pairs, Skipped tags and repositories.
	Repositories, Tags, InSync, Emitted, Skipped int64
	// Complete: the whole source was listed and every tag's digest learned.
	// Only a sweep of everything can be complete; one that went on from a
	// cursor is, if it ended so. A literally named repository that the source
	// lacks is listed: it is empty.
	Complete bool
	// Failed are the destinations, by name, that could not be compared whole,
	// each with its first error.
	Failed map[string]error
	// Voided are repositories of destinations that lack, themselves or one of
	// their tags, what a record calls proven: their records are void, and their
	// registry is to be distrusted. At most 1,000 are named.
	Voided []replicator.Place
	// Findings are at most 1,000.
	Findings []replicator.Finding
	// Sources are the first few errors the source gave.
	Sources error
}

// Sweep compares a route's source with its destinations. Its error is that of
// ctx, of a callback or of Records; what registries did wrong is in the
// Result, which is true as far as it goes even beside an error.
func Sweep(ctx context.Context, request Request) (Result, error) {
	s := newSweep(request)
	err := s.run(ctx)
	return s.outcome(err), err
}
