package daemon

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

func TestRetry(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	at := now.Add
	for _, test := range []struct {
		name     string
		job      replicator.Job
		err      error
		breaker  bool
		state    replicator.JobState
		counted  bool
		earliest time.Time
		latest   time.Time
	}{
		{"first passing fault", replicator.Job{}, oci.ErrInterrupted, false, replicator.Waiting, true, at(firstBackoff / 2), at(firstBackoff + 1)},
		{"backoff grows", replicator.Job{Attempts: 4}, oci.ErrInterrupted, false, replicator.Waiting, true, at(8 * firstBackoff), at(16*firstBackoff + 1)},
		{"backoff ends at five minutes", replicator.Job{Attempts: 400}, oci.ErrInterrupted, false, replicator.Waiting, true, at(longestBackoff / 2), at(longestBackoff + 1)},
		{"an open breaker uses up no attempt", replicator.Job{Attempts: 400, FirstAttempt: at(-48 * time.Hour)}, oci.ErrUnreachable, true, replicator.Waiting, false, at(0), at(longestBackoff + 1)},
		{"throttled waits as asked", replicator.Job{}, &oci.ThrottledError{Wait: 3 * time.Minute, Err: oci.ErrRefused}, false, replicator.Waiting, true, at(3 * time.Minute), at(3 * time.Minute)},
		{"throttled waits no longer than our bound", replicator.Job{}, &oci.ThrottledError{Wait: time.Hour}, false, replicator.Waiting, true, at(longestWait), at(longestWait)},
		{"refused", replicator.Job{}, fmt.Errorf("push: %w", oci.ErrRefused), false, replicator.Refused, true, at(0), at(time.Hour)},
		{"unsupported", replicator.Job{}, oci.ErrUnsupported, false, replicator.Refused, true, at(0), at(time.Hour)},
		{"source incomplete", replicator.Job{}, oci.ErrSourceIncomplete, false, replicator.Refused, true, at(0), at(time.Hour)},
		{"denied is asked again, slowly", replicator.Job{}, oci.ErrDenied, false, replicator.Waiting, true, at(longestBackoff / 2), at(longestBackoff)},
		{"a mismatch may pass", replicator.Job{}, oci.ErrMismatch, false, replicator.Waiting, true, at(0), at(time.Minute)},
		{"a mismatch that stays", replicator.Job{Attempts: mismatchTries - 1}, oci.ErrMismatch, false, replicator.Failed, true, at(0), at(time.Hour)},
		{"gives up after a day", replicator.Job{Attempts: 9, FirstAttempt: at(-giveUpAfter)}, oci.ErrInterrupted, false, replicator.Failed, true, at(0), at(time.Hour)},
		{"a day that was slept through is no reason", replicator.Job{Attempts: 8, FirstAttempt: at(-48 * time.Hour)}, oci.ErrInterrupted, false, replicator.Waiting, true, at(0), at(longestBackoff)},
		{"stalled", replicator.Job{}, errStalled, false, replicator.Waiting, true, at(0), at(time.Minute)},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := retry(test.job, test.err, now, test.breaker)
			if got.State != test.state || got.Counted != test.counted {
				t.Errorf("state %s counted %t, want %s %t", got.State, got.Counted, test.state, test.counted)
			}
			if got.State == replicator.Waiting && (got.NextAttempt.Before(test.earliest) || got.NextAttempt.After(test.latest)) {
				t.Errorf("next attempt in %s, want between %s and %s", got.NextAttempt.Sub(now), test.earliest.Sub(now), test.latest.Sub(now))
			}
			if got.Error == nil || got.Error.Kind == "" {
				t.Errorf("no error kind: %+v", got.Error)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	long := errors.New(string(make([]byte, 10*maxMessage)))
	if n := len(jobError(long).Message); n > maxMessage+len("…") {
		t.Errorf("a message of %d bytes is kept", n)
	}
}
