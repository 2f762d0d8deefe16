package daemon

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// Bounds of the job retries; request retries live in the provider, session
// retries in transfer.
const (
	firstBackoff   = 500 * time.Millisecond
	longestBackoff = 5 * time.Minute
	longestWait    = 15 * time.Minute // of what a registry asks for
	giveUpAfter    = 24 * time.Hour
	giveUpTries    = 10 // at least: a clock that was set, or a machine that slept, ages a job at once
	mismatchTries  = 5
)

// errStalled ends a job that made no step for stallAfter.
var errStalled = errors.New("no progress for 10 minutes")

// errHandedBack ends the jobs still running when the daemon's grace is over.
var errHandedBack = errors.New("handed back at shutdown")

// backoff is the wait of a job before its attempt n+1: exponential, half of it
// jitter.
func backoff(job string, n int) time.Duration {
	d := longestBackoff
	if n < 10 {
		d = min(firstBackoff<<n, longestBackoff)
	}
	return d/2 + jitter(job, n, d/2+1)
}

// jitter is a part of d that differs from job to job and from try to try, and
// is the same whenever one is asked for again: what went wrong once can be
// played back.
func jitter(job string, n int, d time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(job + " " + strconv.Itoa(n))) // never fails
	return time.Duration(h.Sum64() % uint64(d))
}

// retry says what becomes of a job that met err: the only place that knows
// which kinds pass by themselves and which need a person.
func retry(j replicator.Job, err error, now time.Time, breakerOpen bool) journal.Outcome {
	out := journal.Outcome{
		ID: j.ID, Generation: j.Generation,
		State:   replicator.Waiting,
		Counted: true,
		Error:   jobError(err),
	}
	first := j.FirstAttempt
	if first.IsZero() {
		first = now
	}
	out.NextAttempt = now.Add(backoff(j.ID, j.Attempts))
	var throttled *oci.ThrottledError
	switch {
	case errors.Is(err, errStalled):
	case breakerOpen:
		// An open breaker is the registry's trouble, not the job's.
		out.Counted = false
		return out
	case errors.As(err, &throttled):
		if wait := min(throttled.Wait, longestWait); wait > 0 {
			out.NextAttempt = now.Add(wait)
		}
	case errors.Is(err, oci.ErrSourceIncomplete),
		errors.Is(err, oci.ErrUnsupported),
		errors.Is(err, oci.ErrRefused),
		errors.Is(err, oci.ErrImmutable),
		errors.Is(err, oci.ErrInvalid),
		errors.Is(err, oci.ErrTooLarge):
		out.State = replicator.Refused
		return out
	case errors.Is(err, oci.ErrDenied):
		// A permission is mended at the registry, where no config of ours
		// changes: so it is asked for again, slowly, beside the finding.
		out.NextAttempt = now.Add(longestBackoff/2 + jitter(j.ID, j.Attempts, longestBackoff/2))
	case errors.Is(err, oci.ErrMismatch):
		if j.Attempts+1 >= mismatchTries {
			out.State = replicator.Failed
			return out
		}
	}
	if now.Sub(first) >= giveUpAfter && j.Attempts+1 >= giveUpTries {
		out.State = replicator.Failed
	}
	return out
}

// findingFor is the finding an error deserves when the rooms below gave none.
func findingFor(err error) (replicator.FindingKind, bool) {
	switch {
	case errors.Is(err, oci.ErrSourceIncomplete):
		return replicator.FindingSourceIncomplete, true
	case errors.Is(err, oci.ErrMismatch):
		return replicator.FindingMismatch, true
	case errors.Is(err, oci.ErrUnsupported):
		return replicator.FindingUnsupported, true
	case errors.Is(err, oci.ErrImmutable): // equal digests are done: this is another
		return replicator.FindingConflict, true
	case errors.Is(err, oci.ErrDenied), errors.Is(err, oci.ErrRefused),
		errors.Is(err, oci.ErrInvalid), errors.Is(err, oci.ErrTooLarge):
		return replicator.FindingRefused, true
	}
	return "", false
}

// jobError puts an error into words safe to show.
func jobError(err error) *replicator.JobError {
	if err == nil {
		return nil
	}
	e := &replicator.JobError{Kind: oci.KindOf(err), Message: bounded(err.Error())}
	var registry *oci.RegistryError
	if errors.As(err, &registry) {
		e.Hint = registry.Hint
	}
	if errors.Is(err, errStalled) {
		e.Kind = "stalled"
	}
	return e
}

// maxMessage bounds what a registry can make us store and show, in bytes.
const maxMessage = 500

func bounded(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + "…" // no character is cut in two
	}
	return s
}

// cause is the context's cause where that is what ended the work.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return c
	}
	return err
}
