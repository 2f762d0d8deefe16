package api

import (
	"math"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
)

// Status answers /api/v1/status and `twinport status`.
type Status struct {
	// Daemon is null where a command read the journal itself.
	Daemon *DaemonStatus `json:"daemon"`
	Routes []RouteStatus `json:"routes"`
}

// DaemonStatus is the process that answers.
type DaemonStatus struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	Listen    string    `json:"listen"`
	Admin     string    `json:"admin"`
}

// RouteStatus is where one destination of one route stands; durations are
// seconds, times null when unknown.
type RouteStatus struct {
	Route       string   `json:"route"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Lag         float64  `json:"lag"`
	RPO         *float64 `json:"rpo"`
	State       string   `json:"state"`
	// Reason says why the state is missed or unknown.
	Reason  string `json:"reason,omitempty"`
	Waiting int64  `json:"waiting"`
	Running int64  `json:"running"`
	Failed  int64  `json:"failed"`
	Refused int64  `json:"refused"`
	Held    int64  `json:"held"`
	Proven  int64  `json:"proven"`
	// Unconfirmed of the proven tags were moved while the source did not answer.
	Unconfirmed int64      `json:"unconfirmed"`
	Remaining   int64      `json:"remaining"`
	LastSweep   *time.Time `json:"lastSweep"`
	LastProof   *time.Time `json:"lastProof"`
	Paused      bool       `json:"paused"`
	// Deletions is null where the route keeps what is gone at its source.
	Deletions *Deletions `json:"deletions"`
	// SourceUp and DestinationUp are null where nobody asks them.
	SourceUp      *bool  `json:"sourceUp"`
	DestinationUp *bool  `json:"destinationUp"`
	Owner         string `json:"owner,omitempty"`
	Contact       string `json:"contact,omitempty"`

	// For metrics alone.
	OldestProof *time.Time `json:"-"`
}

// Deletions are tags that are gone at a route's source and still at the
// destination: Waiting for their grace, or Held when it had passed.
type Deletions struct {
	Waiting int64 `json:"waiting"`
	Held    int64 `json:"held"`
}

// Behind answers /api/v1/status?behind=true.
type Behind struct {
	Behind []BehindTag `json:"behind"`
	Next   string      `json:"next,omitempty"`
}

// BehindTag is one destination tag that is not what the source wants there.
type BehindTag struct {
	Route       string     `json:"route"`
	Destination string     `json:"destination"`
	Repository  string     `json:"repository"`
	Tag         string     `json:"tag"`
	Wanted      *string    `json:"wanted"`
	Proven      *string    `json:"proven"`
	PushedAt    *time.Time `json:"pushedAt"`
	Why         string     `json:"why"`
}

// Jobs answers /api/v1/jobs.
type Jobs struct {
	Jobs []Job   `json:"jobs"`
	Next *string `json:"next"`
}

// Job is one row of desired state.
type Job struct {
	ID               string               `json:"id"`
	Route            string               `json:"route"`
	Destination      string               `json:"destination"`
	Repository       string               `json:"repository"`
	Source           string               `json:"source"`
	SourceRepository string               `json:"sourceRepository"`
	Tag              string               `json:"tag"`
	Digest           *string              `json:"digest"`
	State            replicator.JobState  `json:"state"`
	Lane             string               `json:"lane"`
	Attempts         int                  `json:"attempts"`
	NextAttempt      *time.Time           `json:"nextAttempt"`
	PushedAt         *time.Time           `json:"pushedAt"`
	Error            *replicator.JobError `json:"error"`
}

// Findings answers /api/v1/findings.
type Findings struct {
	Findings []Finding `json:"findings"`
	Next     *string   `json:"next"`
}

// Finding is something a person should know; what it is not about is null.
type Finding struct {
	ID           string                 `json:"id"`
	Kind         replicator.FindingKind `json:"kind"`
	At           time.Time              `json:"at"`
	FirstAt      *time.Time             `json:"firstAt"`
	Count        int                    `json:"count"`
	Route        *string                `json:"route"`
	Registry     *string                `json:"registry"`
	Repository   *string                `json:"repository"`
	Tag          *string                `json:"tag"`
	Digest       *string                `json:"digest"`
	Message      string                 `json:"message"`
	Hint         string                 `json:"hint"`
	Acknowledged bool                   `json:"acknowledged"`
}

// History answers /api/v1/history.
type History struct {
	Registry   string     `json:"registry"`
	Repository string     `json:"repository"`
	Tag        string     `json:"tag"`
	History    []TagState `json:"history"`
}

// TagState is one line of a tag's history; digest is null where it was deleted.
type TagState struct {
	At     time.Time `json:"at"`
	Digest *string   `json:"digest"`
	Cause  string    `json:"cause"`
}

// SyncRequest asks for POST /api/v1/sync.
type SyncRequest struct {
	Routes   []string `json:"routes,omitempty"`
	Only     string   `json:"only,omitempty"` // REPOSITORY[:TAG]
	Full     bool     `json:"full,omitempty"`
	RetryFor float64  `json:"retryFor,omitempty"` // seconds
}

// Sync answers POST /api/v1/sync and `twinport sync`.
type Sync struct {
	Copied   int64     `json:"copied"`
	Moved    int64     `json:"moved"`
	Deleted  int64     `json:"deleted"`
	Refused  int64     `json:"refused"`
	Failed   int64     `json:"failed"`
	Bytes    int64     `json:"bytes"`
	Requests Requests  `json:"requests"`
	Seconds  float64   `json:"seconds"`
	Findings []Finding `json:"findings"`
	// Errors are comparisons that did not end complete; empty when in sync.
	Errors []string `json:"errors,omitempty"`
}

// Requests counts what was asked of sources and of destinations.
type Requests struct {
	Source      int64 `json:"source"`
	Destination int64 `json:"destination"`
}

// InSync tells whether everything compared is proven.
func (s Sync) InSync() bool { return s.Refused == 0 && s.Failed == 0 && len(s.Errors) == 0 }

// Progress is how far a sync is, for those who watch.
type Progress struct {
	Waiting, Running, Ended int64
	ReadBytes, WrittenBytes int64
	Findings                int64
}

// VerifyRequest asks for POST /api/v1/verify.
type VerifyRequest struct {
	Routes []string `json:"routes,omitempty"`
	Deep   bool     `json:"deep,omitempty"`
}

// Verify answers POST /api/v1/verify and `twinport verify`.
type Verify struct {
	Checked int64      `json:"checked"`
	Missing []Verified `json:"missing"`
	Corrupt []Verified `json:"corrupt"`
	// Errors are destinations that could not be asked.
	Errors []string `json:"errors,omitempty"`
}

// Verified names something a destination lacks or holds damaged.
type Verified struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Digest     string `json:"digest"`
}

// Sound tells whether everything was there and whole.
func (v Verify) Sound() bool {
	return len(v.Missing) == 0 && len(v.Corrupt) == 0 && len(v.Errors) == 0
}

// Changed answers what writes a number of rows: retry, cancel, acknowledge.
type Changed struct {
	Changed int `json:"changed"`
}

// Pauses answers pause and resume.
type Pauses struct {
	Route  string `json:"route"`
	Paused bool   `json:"paused"`
}

// ResolveRequest asks for POST /api/v1/resolve.
type ResolveRequest struct {
	// Reference is REGISTRY/REPOSITORY:TAG, either end; Prefer the registry
	// whose digest is to win.
	Reference string `json:"reference"`
	Prefer    string `json:"prefer"`
}

// Resolved answers it.
type Resolved struct {
	Reference string `json:"reference"`
	Prefer    string `json:"prefer"`
	Digest    string `json:"digest"`
}

// Problem is every error's body.
type Problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// Seconds is a duration as JSON shows it, to the millisecond.
func Seconds(d time.Duration) float64 {
	return math.Round(d.Seconds()*1000) / 1000
}

// Time is nil for the zero time, else UTC.
func Time(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func text[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	t := string(s)
	return &t
}

// ShowJob is a job as JSON shows it: a job wanted by several routes is shown
// under the first.
func ShowJob(j replicator.Job) Job {
	out := Job{
		ID: j.ID, Destination: j.Destination.Registry, Repository: j.Destination.Repository,
		Source: j.Source.Registry, SourceRepository: j.Source.Repository,
		Tag: j.Tag, Digest: text(j.Digest), State: j.State, Lane: j.Lane.String(), Attempts: j.Attempts,
		PushedAt: Time(j.PushedAt), Error: j.Error,
	}
	if len(j.Wants) > 0 {
		out.Route = j.Wants[0].Route
	}
	if j.State == replicator.Waiting {
		out.NextAttempt = Time(j.NextAttempt)
	}
	return out
}

// ShowFinding is a finding as JSON shows it.
func ShowFinding(f replicator.Finding) Finding {
	return Finding{
		ID: f.ID, Kind: f.Kind, At: f.At.UTC(), FirstAt: Time(f.FirstAt), Count: f.Count,
		Route: text(f.Route), Registry: text(f.Registry), Repository: text(f.Repository), Tag: text(f.Tag), Digest: text(f.Digest),
		Message: f.Message, Hint: f.Hint, Acknowledged: f.Acknowledged,
	}
}

// ShowBehind is a tag that is behind as JSON shows it.
func ShowBehind(b journal.Behind) BehindTag {
	why := string(b.State)
	if b.Error != nil {
		why += ": " + b.Error.Message
	}
	return BehindTag{
		Route: b.Route, Destination: b.Destination, Repository: b.Repository, Tag: b.Tag,
		Wanted: text(b.Wanted), Proven: text(b.Proven), PushedAt: Time(b.PushedAt), Why: why,
	}
}

// ShowHistory is a tag's history as JSON shows it, newest first.
func ShowHistory(registry, repository, tag string, states []replicator.TagState) History {
	out := History{Registry: registry, Repository: repository, Tag: tag, History: []TagState{}}
	for _, s := range states {
		out.History = append(out.History, TagState{At: s.At.UTC(), Digest: text(s.Digest), Cause: s.Cause})
	}
	return out
}
