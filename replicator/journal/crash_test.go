package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
)

// reopened opens a copy of the files as a process does that starts after a
// power loss, and tells which tags have a job.
func reopened(t *testing.T, db, wal []byte) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"journal.db": db, "journal.db-wal": wal} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, err := Open(ctx0, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	tags := allTags(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return tags
}

func allTags(t *testing.T, j *Journal) map[string]bool {
	t.Helper()
	counted(t, j)
	tags := map[string]bool{}
	f := JobFilter{Limit: maxPage}
	for page := 0; page == 0 || f.After != ""; page++ {
		jobs, next, err := j.Jobs(ctx0, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			tags[job.Tag] = true
		}
		f.After = next
	}
	return tags
}

func TestAWriteCutAtAnyByteIsWholeOrAbsent(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	for i := range 20 {
		must(j.Accept(ctx0, benchIntake(i)))(t)
	}
	file := func(suffix string) []byte { return must(os.ReadFile(j.Path() + suffix))(t) }
	before := file("-wal")
	last := Intake{Jobs: []replicator.Job{benchIntake(20).Jobs[0], benchIntake(21).Jobs[0], benchIntake(22).Jobs[0]}}
	must(j.Accept(ctx0, last))(t)
	db, wal := file(""), file("-wal")
	const header, frame = 32, 4096 + 24
	if len(wal) <= len(before) || (len(wal)-header)%frame != 0 {
		t.Fatalf("the log went from %d to %d bytes", len(before), len(wal))
	}
	// Cuts within a page are alike: of those a sample, of the last frame's
	// header and of all frames' ends every byte.
	for cut := len(before); cut <= len(wal); cut++ {
		within := (cut - header) % frame
		edge := within <= 1 || within >= frame-1 || within <= 25 && cut > len(wal)-frame
		if !edge && within%1021 != 0 || testing.Short() && cut != len(wal) && within%4000 != 0 {
			continue
		}
		tags := reopened(t, db, wal[:cut])
		for i := range 20 {
			if !tags[benchIntake(i).Jobs[0].Tag] {
				t.Fatalf("cut at %d: job %d, acknowledged before, is lost", cut, i)
			}
		}
		present := 0
		for _, job := range last.Jobs {
			if tags[job.Tag] {
				present++
			}
		}
		if present != 0 && present != len(last.Jobs) || cut == len(wal) && present == 0 {
			t.Fatalf("cut at %d of %d: %d of %d jobs of one intake", cut, len(wal), present, len(last.Jobs))
		}
	}
}

func TestACopyTakenAtAnyMomentHasAllThatWasAcknowledged(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	// Copied into the database, the log would begin anew, and a copy of the two
	// taken one after the other be of two moments.
	err := j.write(ctx0, true, func(b *batch) error {
		b.after = append(b.after, func() {
			if _, err := j.writer.ExecContext(ctx0, "PRAGMA wal_autocheckpoint = 0"); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	db := must(os.ReadFile(j.Path()))(t)
	var stop atomic.Bool
	var mu sync.Mutex
	var acknowledged []string
	var n atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				in := benchIntake(int(n.Add(1)))
				if _, err := j.Accept(ctx0, in); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, in.Jobs[0].Tag)
				mu.Unlock()
			}
		})
	}
	for range 10 {
		mu.Lock()
		known := len(acknowledged)
		mu.Unlock()
		until(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) >= known+5+rand.IntN(20)
		})
		mu.Lock()
		sure := append([]string(nil), acknowledged...)
		mu.Unlock()
		wal := must(os.ReadFile(j.Path() + "-wal"))(t)
		tags := reopened(t, db, wal)
		for _, tag := range sure {
			if !tags[tag] {
				t.Fatalf("%s was acknowledged and is lost", tag)
			}
		}
	}
	if !bytes.Equal(db, must(os.ReadFile(j.Path()))(t)) {
		t.Error("the database changed under the test")
	}
}

const childDir = "TWINPORT_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child accepts pushes and works them off until it is killed, and says what
// was acknowledged.
func child(dir string) error {
	j, err := Open(ctx0, Options{Dir: dir})
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(os.Getenv(childDir + "_FIRST"))
	if err != nil {
		return err
	}
	failed := make(chan error, 10)
	go func() { failed <- j.Run(ctx0) }()
	var n atomic.Int64
	for range 4 {
		go func() {
			for {
				i := first + int(n.Add(1))
				if _, err := j.Accept(ctx0, benchIntake(i)); err != nil {
					failed <- err
					return
				}
				// One write, so that lines of senders do not mix.
				_, _ = os.Stdout.WriteString(strconv.Itoa(i) + "\n")
			}
		}()
	}
	go func() {
		for range j.Changed() {
			claims, err := j.Claim(ctx0, ClaimOptions{Max: 3, MaxForeground: 3, Now: time.Now()})
			if err != nil {
				failed <- err
				return
			}
			for _, c := range claims[:len(claims)/2] {
				o := Outcome{ID: c.Jobs[0].ID, Generation: c.Jobs[0].Generation, State: replicator.Done}
				if err := j.Finish(ctx0, c, []Outcome{o}); err != nil {
					failed <- err
					return
				}
			}
		}
	}()
	return <-failed
}

func TestAcknowledgedPushesSurviveKill(t *testing.T) {
	self := must(os.Executable())(t)
	dir := t.TempDir()
	var acknowledged []int
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		ctx, cancel := context.WithTimeout(ctx0, time.Minute)
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), childDir+"="+dir, childDir+"_FIRST="+strconv.Itoa(round*1_000_000))
		cmd.Stderr = os.Stderr
		out := must(cmd.StdoutPipe())(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for kill := 50 + rand.IntN(400); lines.Scan(); kill-- {
			i, err := strconv.Atoi(lines.Text())
			if err != nil {
				break // the line the kill cut
			}
			acknowledged = append(acknowledged, i)
			if kill == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		cancel()
		// Commands read what a dead daemon left.
		left := must(OpenReadOnly(ctx0, dir))(t)
		seen := allTags(t, left)
		if err := left.Close(); err != nil {
			t.Error(err)
		}
		for _, i := range acknowledged {
			if tag := benchIntake(i).Jobs[0].Tag; !seen[tag] {
				t.Fatalf("after kill %d: %s is not seen by who only reads", round, tag)
			}
		}
		j, err := Open(ctx0, Options{Dir: dir})
		if err != nil {
			t.Fatalf("after kill %d: %v", round, err)
		}
		tags := allTags(t, j)
		for _, i := range acknowledged {
			if tag := benchIntake(i).Jobs[0].Tag; !tags[tag] {
				t.Fatalf("after kill %d: %s was acknowledged and is lost", round, tag)
			}
		}
		if counts := must(j.JobCounts(ctx0))(t); counts[replicator.Running][0] != 0 {
			t.Errorf("after kill %d: %d jobs still run", round, counts[replicator.Running][0])
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < rounds*50 {
		t.Errorf("only %d pushes were acknowledged", len(acknowledged))
	}
}
