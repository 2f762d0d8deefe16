package journal

import (
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// What callers can tell apart.
var (
	// ErrLocked: another process has the journal.
	ErrLocked = errors.New("the data directory is in use by another twinport")
	// ErrFenced: the claim's lease belongs to somebody else by now; nothing was written.
	ErrFenced = errors.New("the lease is lost")
	// ErrBusy: the committer's queue is full; ask again.
	ErrBusy = errors.New("the journal is busy")
	// ErrClosed: the journal no longer commits.
	ErrClosed = errors.New("the journal is closed")
	// ErrUnknown: no such job, finding or route.
	ErrUnknown = errors.New("unknown")
	// ErrPage: a filter's After is no Next of ours.
	ErrPage = errors.New("no page begins there")
)

// An Intake is what one webhook or one page of a sweep brings; it is committed
// as a whole.
type Intake struct {
	Jobs     []replicator.Job // ID, State and Generation are the journal's to give
	History  []replicator.TagState
	Findings []replicator.Finding
	// SweepDue names registries whose routes are to be swept soon, since
	// something was told that we could not use.
	SweepDue []string
}

// Accepted counts what became of an Intake's jobs.
type Accepted struct {
	Made    int // new rows, and rows that had ended
	Renewed int // waiting or running rows that were pushed to again
	Held    int // a person holds this tag→digest
	Refused int // the refusal of this digest is remembered
}

// ClaimOptions say what a replica can take now.
type ClaimOptions struct {
	// Max is how many claims are wanted, MaxBackground how many of them may be
	// of the sweep and backfill lanes, and Foreground how many may be of the
	// other lanes.
	Max, MaxBackground, MaxForeground int
	// Down are the identities of registries whose breaker is open: jobs that
	// need them stay, their attempts uncounted.
	Down []string
	// Elsewhere are the IDs of jobs that may be claimed though their source is
	// Down: what they want is to be had from another place.
	Elsewhere []string
	Now       time.Time
}

// A Claim is all due jobs of one source tag (or digest), whatever their
// destinations: one lease, one copy, one outcome per job.
type Claim struct {
	Replica string
	Epoch   int64
	Jobs    []replicator.Job
}

// An Outcome ends one job of a claim, or gives it back.
type Outcome struct {
	ID         string
	Generation int64
	// State is Done, Waiting (try again at NextAttempt), Failed, Refused, Held,
	// or Superseded (nothing is left to prove: the source no longer has it).
	// Where the row was pushed to meanwhile, it goes back to Waiting at once
	// with the new push, whatever State says; the rest of the outcome is kept.
	State       replicator.JobState
	NextAttempt time.Time
	// Counted says whether this was an attempt; a breaker's wait is none.
	Counted bool
	// Digest is what the tag was found to name, when that is known.
	Digest digest.Digest
	Error  *replicator.JobError
	// Records are what the job proved.
	Records []replicator.Record
	// Void are repositories whose records and locations are no longer believed.
	Void []replicator.Place
	// Distrust are identities of registries that lacked something called
	// proven: none of their records counts until proven again.
	Distrust []string
	// Base, where not empty, is the digest both sides now share; open intents end with it.
	Base      digest.Digest
	Locations []replicator.Location
	Findings  []replicator.Finding
	History   []replicator.TagState
}

// A JobFilter selects jobs; empty fields select all.
type JobFilter struct {
	IDs         []string
	States      []replicator.JobState
	Route       string
	Destination string // registry name
	Repository  string // destination or source repository, exact
	Tag         string
	Lane        *replicator.Lane
	ErrorKind   string
	// After is the Next of the page before; Limit 0 means 100, at most 1,000.
	After string
	Limit int
}

// A FindingFilter selects findings, newest first; empty fields select all.
type FindingFilter struct {
	IDs          []string
	Kind         replicator.FindingKind
	Route        string
	Registry     string
	Acknowledged *bool
	After        string
	Limit        int
}

// A Standing is where one destination of one route stands.
type Standing struct {
	Route, Destination string
	// BehindSince is the earliest push no proof covers; zero: none.
	BehindSince time.Time
	// By state: Waiting, Running, Failed, Refused, Held.
	Counts map[replicator.JobState]int64
	// Lanes counts the waiting and running by lane.
	Lanes map[replicator.Lane]int64
	// Proven counts the trusted records of the route there, Unconfirmed those of
	// them whose source has yet to be asked.
	Proven, Unconfirmed int64
	// LastProof and OldestProof are of those records; zero: none.
	LastProof, OldestProof time.Time
	// Backfill counts the unproven of the backfill lane.
	Backfill int64
}

// A Behind is one destination tag that is not what the source wants there.
type Behind struct {
	Route, Destination, Repository, Tag string
	Wanted, Proven                      digest.Digest // Proven is empty where nothing is
	PushedAt                            time.Time
	BehindSince                         time.Time
	State                               replicator.JobState
	Error                               *replicator.JobError
	ID                                  string
}

// An AuditEntry says who did what, when.
type AuditEntry struct {
	At     time.Time
	Actor  string // "cli root@host", "api", "config"
	Action string // "config.load", "route.pause", "job.cancel", …
	Target string
	Detail string
}

// A Registry is one of the config's, as the journal keys it.
type Registry struct{ Name, Identity string }

// A Route is one of the config's: what it joins decides which waiting jobs are
// still wanted.
type Route struct {
	Name         string
	From         string   // registry name
	Destinations []string // registry names
}
