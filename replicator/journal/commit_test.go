package journal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
)

// until lets others run until something is so.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
	}
}

func TestAFullQueueIsBusyAndWritesBeforeRunWait(t *testing.T) {
	j := must(Open(ctx0, Options{Dir: t.TempDir()}))(t)
	var wg sync.WaitGroup
	results := make(chan error, queueSize)
	for i := range queueSize {
		wg.Go(func() {
			_, err := j.Accept(ctx0, benchIntake(i))
			results <- err
		})
	}
	// The queue is full once nobody is on the way into it.
	until(t, func() bool { return len(j.intakes) == queueSize || len(results) > 0 })
	if len(results) > 0 {
		t.Fatalf("a write ended before Run: %v", <-results)
	}
	if _, err := j.Accept(ctx0, benchIntake(queueSize)); !errors.Is(err, ErrBusy) {
		t.Errorf("a full queue: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx0)
	cancel() // what was taken is committed all the same
	if err := j.Run(ctx); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for range queueSize {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	counts := must(j.JobCounts(ctx0))(t)
	if got := counts[replicator.Waiting][replicator.LaneWebhook]; got != queueSize {
		t.Errorf("%d jobs of %d", got, queueSize)
	}
	if _, err := j.Accept(ctx0, benchIntake(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if err := j.Run(ctx0); err == nil {
		t.Error("it ran twice")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseAnswersWhoWaits(t *testing.T) {
	j := must(Open(ctx0, Options{Dir: t.TempDir()}))(t)
	result := make(chan error, 1)
	go func() {
		_, err := j.Accept(ctx0, benchIntake(1))
		result <- err
	}()
	until(t, func() bool { return len(j.intakes) > 0 })
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestACallerWithoutPatienceGoesAlone(t *testing.T) {
	j := must(Open(ctx0, Options{Dir: t.TempDir()}))(t)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(ctx0)
	cancel(gone)
	if _, err := j.Accept(ctx, benchIntake(1)); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	ran, stop := context.WithCancel(ctx0)
	stop()
	if err := j.Run(ran); err != nil {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestOneBadRequestDoesNotFailItsBatch(t *testing.T) {
	j := must(Open(ctx0, Options{Dir: t.TempDir()}))(t)
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if i == 7 {
				errs[i] = j.write(ctx0, false, func(b *batch) error { return b.exec("SELECT 1 FROM nowhere") })
				return
			}
			_, errs[i] = j.Accept(ctx0, benchIntake(i))
		})
	}
	until(t, func() bool { return len(j.intakes) == len(errs) })
	ctx, cancel := context.WithCancel(ctx0)
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 7) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	counts := must(j.JobCounts(ctx0))(t)
	if got := counts[replicator.Waiting][replicator.LaneWebhook]; got != 19 {
		t.Errorf("%d jobs", got)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestEqualPushesOfOneBatchAreOneRow(t *testing.T) {
	j := must(Open(ctx0, Options{Dir: t.TempDir()}))(t)
	var wg sync.WaitGroup
	accepted := make([]Accepted, 50)
	for i := range accepted {
		wg.Go(func() { accepted[i], _ = j.Accept(ctx0, benchIntake(3)) })
	}
	until(t, func() bool { return len(j.intakes) == len(accepted) })
	ctx, cancel := context.WithCancel(ctx0)
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	made, again := 0, 0
	for _, a := range accepted {
		made, again = made+a.Made, again+a.Renewed
	}
	jobs, _, err := j.Jobs(ctx0, JobFilter{})
	if made != 1 || again != 49 || len(jobs) != 1 || jobs[0].Generation != 50 || err != nil {
		t.Errorf("made %d, renewed %d, %+v, %v", made, again, jobs, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// Every accepted push of a tag ends proven or superseded, whatever order
// pushes, claims and ends come in.
func TestConcurrentPushesAndWorkersLoseNothing(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	const senders, pushes, tags = 8, 60, 5
	ctx, cancel := context.WithCancel(ctx0)
	var workers, pushers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for {
				claims, err := j.Claim(ctx0, ClaimOptions{Max: 2, MaxForeground: 2, Now: time.Now()})
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range claims {
					var outcomes []Outcome
					for _, job := range c.Jobs {
						outcomes = append(outcomes, Outcome{ID: job.ID, Generation: job.Generation, State: replicator.Done, Counted: true})
					}
					if err := j.Finish(ctx0, c, outcomes); err != nil {
						t.Error(err)
					}
				}
				if len(claims) > 0 {
					continue
				}
				select {
				case <-j.Changed():
				case <-ctx.Done():
					return
				}
			}
		})
	}
	var mu sync.Mutex
	pushed := map[string]bool{}
	for s := range senders {
		pushers.Go(func() {
			for i := range pushes {
				in := benchIntake(0)
				in.Jobs[0].Tag = fmt.Sprintf("t%d", i%tags)
				in.Jobs[0].Digest = dgst(fmt.Sprintf("%d-%d", s, i))
				mu.Lock()
				pushed[in.Jobs[0].Digest.String()] = true
				mu.Unlock()
				if _, err := j.Accept(ctx0, in); err != nil {
					t.Error(err)
				}
			}
		})
	}
	pushers.Wait()
	until(t, func() bool {
		counts := must(j.JobCounts(ctx0))(t)
		return counts[replicator.Waiting][0]+counts[replicator.Running][0] == 0
	})
	cancel()
	workers.Wait()
	f := JobFilter{Limit: 1000}
	for page := 0; page == 0 || f.After != ""; page++ {
		jobs, next, err := j.Jobs(ctx0, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			delete(pushed, job.Digest.String())
		}
		f.After = next
	}
	if len(pushed) != 0 {
		t.Errorf("%d pushes left no trace", len(pushed))
	}
}
