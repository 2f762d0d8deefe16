// Package replicator holds Twinport's own words as values: what an event told,
// what a job is to do, what is proven, and what a person should know. It does
// nothing.
package replicator

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// An Action is what an event says happened.
type Action string

// The actions an event can tell.
const (
	Push   Action = "push"
	Delete Action = "delete"
)

// A Lane is a job's way through the queue; a smaller one goes first.
type Lane int

// The lanes, highest first.
const (
	LaneWebhook Lane = iota
	LaneManual
	LaneSweep
	LaneBackfill
)

// Lanes are all lanes, highest first.
var Lanes = []Lane{LaneWebhook, LaneManual, LaneSweep, LaneBackfill}

var laneNames = [...]string{"webhook", "manual", "sweep", "backfill"}

// String is the lane as commands, JSON and metrics show it.
func (l Lane) String() string {
	if l < 0 || int(l) >= len(laneNames) {
		return fmt.Sprintf("lane(%d)", int(l))
	}
	return laneNames[l]
}

// MarshalText makes lanes their names in JSON.
func (l Lane) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a lane's name.
func (l *Lane) UnmarshalText(text []byte) error {
	for i, name := range laneNames {
		if name == string(text) {
			*l = Lane(i)
			return nil
		}
	}
	return fmt.Errorf("no lane %.20q", text)
}

// Background tells whether the lane is closed to a quarter of each registry's slots.
func (l Lane) Background() bool { return l == LaneSweep || l == LaneBackfill }

// An Event is a hint that something changed at a registry.
type Event struct {
	Action Action
	// Registry is the config's name of the registry that told; the event can
	// name nothing outside it.
	Registry string
	// Repository is the name below the registry's prefix.
	Repository string
	// Tag is empty for what was pushed or deleted by digest alone.
	Tag string
	// Digest is a hint, empty where the sender gives none.
	Digest digest.Digest
	// MediaType is a hint, empty where the sender gives none.
	MediaType string
	// MayRefer: the event is of an untagged manifest that has, or may have, a
	// subject, at a registry whose pushers keep no fallback tag; so it may be a
	// signature or SBOM of something replicated.
	MayRefer bool
	// PushedAt is when the source took the push, UTC, never after ReceivedAt;
	// SenderTime says that the sender told it, otherwise it is our best bound.
	PushedAt   time.Time
	SenderTime bool
	ReceivedAt time.Time
	Lane       Lane
	// Cause tells what brought the event, for tag history: "webhook",
	// "sweep: tag missing at us", "sync", ….
	Cause string
	// Destinations limits the event to these registries of the config; nil: all.
	Destinations []string
	// Full: the job believes no record and asks for everything.
	Full bool
}

// A Place is one repository of one registry.
type Place struct {
	// Registry is the config's name, Identity the canonical address that
	// outlives names.
	Registry   string
	Identity   string
	Repository string
}

func (p Place) String() string { return p.Registry + "/" + p.Repository }

// A Flow says how a job's two ends stand to each other.
type Flow int

// The flows a job can have.
const (
	// OneWay: the source decides.
	OneWay Flow = iota
	// TwoWay: the two ends feed each other; source and destination are in an
	// order both directions agree on, and one row serves both.
	TwoWay
	// Ring: the route is part of a longer cycle: the destination may hold
	// something newer that will come round.
	Ring
)

// A Want is one route's claim to a job: the route, and the registry of the
// config it wants the tag at (in a TwoWay job that may be either end).
type Want struct {
	Route       string
	Destination string
}

// A JobState is where a job stands.
type JobState string

// The states a job can be in.
const (
	Waiting    JobState = "waiting"
	Running    JobState = "running"
	Failed     JobState = "failed"     // gave up after 24 h: retryable, revived by the next push
	Refused    JobState = "refused"    // a registry refuses for good: a person has to look
	Held       JobState = "held"       // by a person, or its route was removed
	Done       JobState = "done"       // proven
	Superseded JobState = "superseded" // replaced by a later push
)

// JobStates are all states, in the order status shows them.
var JobStates = []JobState{Waiting, Running, Failed, Refused, Held, Done, Superseded}

// Unproven tells whether the state counts for lag and as behind.
func (s JobState) Unproven() bool {
	return s == Waiting || s == Running || s == Failed || s == Refused
}

// A JobError is why a job has not ended yet, in words safe to show.
type JobError struct {
	// Kind is oci.KindOf, or a word of the daemon's ("conflict", "collision", "stalled").
	Kind    string `json:"kind"`
	Message string `json:"message"`
	// Hint says what a person can do, where that is known.
	Hint string `json:"hint,omitempty"`
}

// A Job is a digest to bring to a destination and a tag to move to it: one row
// of desired state per (destination, destination repository, tag, or digest
// where untagged).
type Job struct {
	ID          string
	Source      Place
	Destination Place
	// Tag is empty where the digest is wanted for itself.
	Tag string
	// Digest is what is wanted: a hint on a tag's row, empty when it has yet to
	// be resolved.
	Digest digest.Digest
	// Wants are the routes that want it, at least one.
	Wants []Want
	Flow  Flow
	Lane  Lane
	// PushedAt is the latest push, BehindSince the earliest one no proof covers.
	PushedAt    time.Time
	SenderTime  bool
	BehindSince time.Time
	Full        bool
	State       JobState
	Attempts    int
	// FirstAttempt is when this digest was first tried, zero before.
	FirstAttempt time.Time
	NextAttempt  time.Time
	Error        *JobError
	// Generation grows with every push to the row; a claim ends only the one it took.
	Generation int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
	// HeldDigest is what a person holds at this tag, empty when nothing: a job
	// that finds the source's tag to name it ends Held.
	HeldDigest digest.Digest
}

// Reference is the tag, or the digest where there is none.
func (j Job) Reference() string {
	if j.Tag != "" {
		return j.Tag
	}
	return j.Digest.String()
}

// A Record says what is proven at a destination, and when.
type Record struct {
	Destination Place
	// Tag is empty for a digest wanted for itself.
	Tag    string
	Digest digest.Digest
	// Source is where it came from: the first source that wrote a tag owns it.
	Source Place
	Route  string
	// PushedAt is the source's push, along a chain the origin's.
	PushedAt time.Time
	// ProvenAt is when the destination was last read back whole.
	ProvenAt time.Time
	// ReferrersAt is when the source was last asked for the root's referrers.
	ReferrersAt time.Time
	// Wrote says that we moved the tag there ourselves; a record of what was
	// found to be right already says false.
	Wrote bool
	// Bytes is the size of the whole graph: manifests and distinct blobs.
	Bytes int64
	// Unconfirmed: the source did not answer when the tag was moved here, to the
	// newest push that was known; whether it names that still is to be asked.
	Unconfirmed bool
}

// A TagState is one line of a tag's history: from At on, it named Digest.
type TagState struct {
	Place  Place
	Tag    string
	Digest digest.Digest // empty: deleted
	At     time.Time
	// Cause: "webhook", "sweep", "copied", "verified", "drift", ….
	Cause string
	// SeenAt is when the tag was surely read to name Digest, zero where that was
	// only told. At is a guess then: a state known from between the two came
	// before this one.
	SeenAt time.Time
}

// A Departure is a destination's tag whose source no longer has it: what a
// route that carries deletions over waits to remove. It belongs to the digest
// that is on record there; with another digest it begins anew.
type Departure struct {
	Route       string
	Destination Place
	Tag         string
	Source      Place
	Digest      digest.Digest
	// Since is when a listing of the source first lacked the tag, SeenAt when
	// one last did.
	Since, SeenAt time.Time
	// Absent is how long it is known to be missing, which is what the grace is
	// held against: of the time that nobody looked, and of what a clock jumped,
	// a part counts at most.
	Absent time.Duration
	// Held is why it was kept when its grace had passed, empty where it was not.
	Held string
	// Begun: its removal was begun and is not known to have ended. The record is
	// given up before, so that Digest is what was proven there.
	Begun bool
}

// A Finding is something a person should know. Equal ones (all but At and
// Message) are one finding, told again.
type Finding struct {
	ID           string
	Kind         FindingKind
	At           time.Time // last told
	FirstAt      time.Time
	Count        int
	Route        string
	Registry     string
	Repository   string
	Tag          string
	Digest       digest.Digest
	Message      string
	Hint         string
	Acknowledged bool
}

// A FindingKind says what a finding is about; deploy/docs/operations.md tells
// what to do about each.
type FindingKind string

// The kinds of finding.
const (
	FindingConflict         FindingKind = "conflict"
	FindingCollision        FindingKind = "collision"
	FindingDrift            FindingKind = "drift"
	FindingCorrupt          FindingKind = "corrupt"
	FindingMissing          FindingKind = "missing"
	FindingMismatch         FindingKind = "mismatch"
	FindingRefused          FindingKind = "refused"
	FindingUnsupported      FindingKind = "unsupported"
	FindingForeignLayer     FindingKind = "foreign-layer"
	FindingSourceIncomplete FindingKind = "source-incomplete"
	FindingRegressed        FindingKind = "regressed"
	FindingUnlistable       FindingKind = "unlistable"
	FindingDeleteHeld       FindingKind = "delete-held"
	FindingIdentityChanged  FindingKind = "identity-changed"
	FindingUnusableEvent    FindingKind = "unusable-event"
	FindingReferrers        FindingKind = "referrers"
	FindingConfig           FindingKind = "config"
	FindingSlowSweep        FindingKind = "slow-sweep"
)

// FindingKinds are all kinds.
var FindingKinds = []FindingKind{
	FindingConflict, FindingCollision, FindingDrift, FindingCorrupt, FindingMissing, FindingMismatch, FindingRefused,
	FindingUnsupported, FindingForeignLayer, FindingSourceIncomplete, FindingRegressed, FindingUnlistable,
	FindingDeleteHeld, FindingIdentityChanged, FindingUnusableEvent, FindingReferrers, FindingConfig, FindingSlowSweep,
}

// A Base is the last digest both sides of a TwoWay or Ring job shared, and the
// writes begun since: a side that names the base or either end of an intent has
// not moved by itself.
type Base struct {
	Digest  digest.Digest // empty: none yet
	Intents []Intent
}

// An Intent is a tag's move that has been begun: written before the PUT.
type Intent struct {
	// At is the identity of the registry the tag is moved at.
	At       string
	Old, New digest.Digest // Old is empty where the tag did not exist
}

// A Location says that a repository of a registry holds a blob: a mount
// candidate, a hint that a refusal voids.
type Location struct {
	Place  Place
	Digest digest.Digest
}

// A SweepState is what is known of one route's comparison with one destination.
type SweepState struct {
	Route       string
	Destination string
	// Cursor is the source repository after which an interrupted sweep goes on.
	Cursor      string
	StartedAt   time.Time
	CompletedAt time.Time // the last complete sweep's end; zero: none
	// CompleteStart is when the last complete sweep began: what it had not
	// seen was pushed after it.
	CompleteStart time.Time
	FailedAt      time.Time // the last failed sweep's end; zero: none
	Error         string    // why it failed
	Requests      int64     // of the last sweep
	Tags          int64     // seen by the last complete sweep
	// Seeded: a complete sweep's jobs have all been proven once.
	Seeded bool
}
