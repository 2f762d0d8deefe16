package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator"
)

// filled makes a journal that has something in every table worth keeping, as
// one file, and gives its path.
func filled(t *testing.T, jobs int) string {
	t.Helper()
	dir := t.TempDir()
	j := running1(t, Options{Dir: filepath.Join(dir, "made")})
	for i := range jobs {
		must(j.Accept(ctx0, benchIntake(i)))(t)
	}
	claims := must(j.Claim(ctx0, ClaimOptions{Max: 3, MaxForeground: 3, Now: time.Now()}))(t)
	if len(claims) != 3 {
		t.Fatalf("%d claims", len(claims))
	}
	var records []replicator.Record
	for i := range jobs {
		job := benchIntake(i).Jobs[0]
		records = append(records, replicator.Record{
			Destination: job.Destination, Tag: job.Tag, Digest: job.Digest, Route: "prod", Source: job.Source,
			PushedAt: time.Now(), ProvenAt: time.Now(), Wrote: true,
		})
	}
	for _, err := range []error{
		j.SaveRecords(ctx0, records),
		j.AddFindings(ctx0, []replicator.Finding{{Kind: replicator.FindingDrift, At: time.Now(), Route: "prod", Registry: "us", Message: "moved"}}),
		j.Audit(ctx0, AuditEntry{At: time.Now(), Actor: "somebody", Action: "test"}),
		j.Pause(ctx0, "other", "somebody"),
		j.SaveSweepState(ctx0, replicator.SweepState{Route: "prod", Destination: "us", CompletedAt: time.Now(), Seeded: true}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(j.Cancel(ctx0, JobFilter{Tag: benchIntake(jobs - 1).Jobs[0].Tag}, "somebody"))(t)
	checkpointed(t, j, filepath.Join(dir, "journal.db"))
	return filepath.Join(dir, "journal.db")
}

// contents are what a rebuild has to keep, comparable.
func contents(t *testing.T, dir string) map[string][]string {
	t.Helper()
	j := must(OpenReadOnly(ctx0, dir))(t)
	defer j.Close()
	have := map[string][]string{}
	filter := JobFilter{Limit: maxPage}
	for page := 0; page == 0 || filter.After != ""; page++ {
		jobs, next, err := j.Jobs(ctx0, filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			state := job.State
			if state == replicator.Running { // the process that ran it is gone
				state = replicator.Waiting
			}
			have["jobs"] = append(have["jobs"], fmt.Sprint(job.ID, state, job.Source, job.Destination, job.Tag, job.Digest, job.PushedAt))
		}
		filter.After = next
	}
	for i := range len(have["jobs"]) {
		in := benchIntake(i)
		states := must(j.History(ctx0, in.History[0].Place.Identity, in.History[0].Place.Repository, in.History[0].Tag, nil, 10))(t)
		for _, s := range states {
			have["history"] = append(have["history"], fmt.Sprint(s))
		}
	}
	findings, _, err := j.Findings(ctx0, FindingFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		have["findings"] = append(have["findings"], fmt.Sprint(f.Kind, f.At, f.Message))
	}
	for _, a := range must(j.Audits(ctx0, 100))(t) {
		if a.Action != "journal.rebuild" {
			have["audits"] = append(have["audits"], fmt.Sprint(a))
		}
	}
	have["paused"] = append(have["paused"], fmt.Sprint(must(j.Paused(ctx0))(t)))
	return have
}

func rows(t *testing.T, dir string) Inspection {
	t.Helper()
	i := must(Inspect(ctx0, dir))(t)
	if !i.Sound {
		t.Fatalf("not sound: %q", i.Problems)
	}
	return i
}

func TestARebuiltJournalHasWhatTheOldOneHad(t *testing.T) {
	path := filled(t, 500)
	dir := filepath.Dir(path)
	before := contents(t, dir)
	was := rows(t, dir)
	if was.Rows["records"] != 500 || was.Rows["jobs"] != 500 || was.Jobs["waiting"] == 0 || was.Jobs["held"] != 1 || was.Schema != schemaVersion {
		t.Fatalf("%+v", was)
	}
	old := must(os.ReadFile(path))(t)
	if r := must(Rebuild(ctx0, Options{Dir: dir}, false))(t); r.Aside != "" || !bytes.Equal(old, must(os.ReadFile(path))(t)) {
		t.Fatalf("a sound journal was rebuilt: %+v", r)
	}
	r := must(Rebuild(ctx0, Options{Dir: dir}, true))(t)
	if !r.Whole() || r.Kept["jobs"] != 500 || r.Kept["records"] != 500 {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(old, must(os.ReadFile(r.Aside))(t)) {
		t.Error("the old journal was changed")
	}
	rows(t, dir)
	if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
		t.Errorf("it is otherwise than before (-before +after):\n%s", diff)
	}
	j := running1(t, Options{Dir: dir})
	in := benchIntake(1).Jobs[0]
	if record, ok, err := j.Record(ctx0, in.Destination.Identity, in.Destination.Repository, in.Tag); err != nil || ok {
		t.Errorf("what was proven is believed: %+v, %v", record, err)
	}
	if s := must(j.SweepState(ctx0, "prod", "us"))(t); s.Seeded || !s.CompletedAt.IsZero() {
		t.Errorf("a sweep is believed: %+v", s)
	}
	if claims := must(j.Claim(ctx0, ClaimOptions{Max: 3, MaxForeground: 3, Now: time.Now()}))(t); len(claims) != 3 {
		t.Errorf("%d claims", len(claims))
	}
	must(j.Accept(ctx0, benchIntake(1000)))(t)
	if _, err := Rebuild(ctx0, Options{Dir: dir}, true); !errors.Is(err, ErrLocked) {
		t.Errorf("rebuilt under a daemon: %v", err)
	}
	if i, err := Inspect(ctx0, dir); err != nil || !i.Sound {
		t.Errorf("beside a daemon: %v, %v", i.Problems, err)
	}
}

// TestEveryTableIsKeptOrDropped: whoever adds a table decides here.
func TestEveryTableIsKeptOrDropped(t *testing.T) {
	db := must(emptyJournal(ctx0))(t)
	defer db.Close()
	var named []string
	for _, s := range salvages {
		named = append(named, s.table)
		if _, err := tableOf(ctx0, db, s.table); err != nil {
			t.Error(err)
		}
	}
	err := each(ctx0, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`, nil, func(scan scanner) error {
		var name string
		err := scan(&name)
		if name != "goose_db_version" && !slices.Contains(named, name) {
			t.Errorf("nobody says what becomes of table %s when a journal is rebuilt", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// damages are the ways in which a file is broken, by what a random source says.
var damages = map[string]func(r *rand.Rand, b []byte) []byte{
	"a byte": func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
		return b
	},
	"many bytes": func(r *rand.Rand, b []byte) []byte {
		for range 50 {
			b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
		}
		return b
	},
	"a page of zeros": func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b)/4096) * 4096
		clear(b[at : at+4096])
		return b
	},
	"a page of noise": func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b)/4096) * 4096
		for i := range 4096 {
			b[at+i] = byte(r.Uint32())
		}
		return b
	},
	"a page of another place": func(r *rand.Rand, b []byte) []byte {
		from, to := r.IntN(len(b)/4096)*4096, r.IntN(len(b)/4096)*4096
		copy(b[to:to+4096], b[from:from+4096])
		return b
	},
	"cut":      func(r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] },
	"cut tail": func(r *rand.Rand, b []byte) []byte { return b[:len(b)-1-r.IntN(8192)] },
}

// TestRandomDamage: whatever is broken, looking ends and changes nothing,
// rebuilding gives a sound journal that opens and has nothing the old one did
// not have, and the old one is set aside as it was.
func TestRandomDamage(t *testing.T) {
	path := filled(t, 120)
	sound := must(os.ReadFile(path))(t)
	known := map[string]bool{}
	for _, lines := range contents(t, filepath.Dir(path)) {
		for _, line := range lines {
			known[line] = true
		}
	}
	rounds := 12
	if testing.Short() {
		rounds = 2
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			kept := int64(0)
			for seed := range rounds {
				dir := t.TempDir()
				file := filepath.Join(dir, "journal.db")
				broken := damage(rand.New(rand.NewPCG(uint64(seed), 7)), bytes.Clone(sound))
				if err := os.WriteFile(file, broken, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := Inspect(ctx0, dir); err != nil {
					if errors.Is(err, ErrNewer) { // that is what the file says now
						continue
					}
					t.Fatalf("seed %d: inspect: %v", seed, err)
				}
				if !bytes.Equal(broken, must(os.ReadFile(file))(t)) {
					t.Fatalf("seed %d: looking changed it", seed)
				}
				r, err := Rebuild(ctx0, Options{Dir: dir}, true)
				if err != nil {
					t.Fatalf("seed %d: rebuild: %v", seed, err)
				}
				if !bytes.Equal(broken, must(os.ReadFile(r.Aside))(t)) {
					t.Fatalf("seed %d: what was set aside is not what was there", seed)
				}
				rows(t, dir)
				if name != "a byte" && name != "many bytes" { // what is one character off cannot be told
					for what, lines := range contents(t, dir) {
						for _, line := range lines {
							if !known[line] && what != "paused" {
								t.Errorf("seed %d: %s has what was never there: %s", seed, what, line)
							}
						}
					}
				}
				kept += r.Kept["jobs"]
				j, err := Open(ctx0, Options{Dir: dir})
				if err != nil {
					t.Fatalf("seed %d: open: %v", seed, err)
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d of %d jobs were kept", kept, rounds*120)
			if kept == 0 {
				t.Error("nothing was ever kept")
			}
		})
	}
}

// TestTornLog: a database whose log is torn or not its own.
func TestTornLog(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	for i := range 50 {
		must(j.Accept(ctx0, benchIntake(i)))(t)
	}
	db, wal := must(os.ReadFile(j.Path()))(t), must(os.ReadFile(j.Path()+"-wal"))(t)
	for name, torn := range map[string][]byte{
		"cut": wal[:len(wal)*2/3], "noise in the middle": append(append(bytes.Clone(wal[:len(wal)/2]), make([]byte, 500)...), wal[len(wal)/2:]...),
		"no log": []byte(strings.Repeat("x", 5000)), "gone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for suffix, content := range map[string][]byte{"": db, "-wal": torn} {
				if err := os.WriteFile(filepath.Join(dir, "journal.db"+suffix), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Rebuild(ctx0, Options{Dir: dir}, true)
			if err != nil {
				t.Fatal(err)
			}
			rows(t, dir)
			if torn != nil && !bytes.Equal(torn, must(os.ReadFile(r.Aside+"-wal"))(t)) {
				t.Error("the log is not beside the old journal as it was")
			}
			t.Logf("%d jobs", r.Kept["jobs"])
		})
	}
}

// TestRebuildInterrupted: after any number of its steps, the next start has
// either the old journal or all of the new one.
func TestRebuildInterrupted(t *testing.T) {
	path := filled(t, 50)
	old := must(os.ReadFile(path))(t)
	// What a whole run leaves, to make each stage of it from.
	done := t.TempDir()
	if err := os.WriteFile(filepath.Join(done, "journal.db"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	r := must(Rebuild(ctx0, Options{Dir: done}, true))(t)
	made := must(os.ReadFile(r.Path))(t)
	stamp := strings.TrimPrefix(r.Aside, r.Path+asideSuffix)
	log := []byte("the old journal's log")
	for name, files := range map[string]map[string][]byte{
		"while it is written": {"": old, "-wal": nil, newSuffix: made[:len(made)/2]},
		"while it is named":   {"": old, rebuiltSuffix + stamp: made},
		"log set aside":       {"": old, asideSuffix + stamp + "-wal": log, rebuiltSuffix + stamp: made},
		"old set aside":       {asideSuffix + stamp: old, asideSuffix + stamp + "-wal": log, rebuiltSuffix + stamp: made},
		"done":                {"": made, asideSuffix + stamp: old},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for suffix, content := range files {
				if content == nil {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, "journal.db"+suffix), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			j, err := Open(ctx0, Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(allTags(t, j)); n != 50 {
				t.Errorf("%d jobs", n)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*"+rebuiltSuffix+"*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if name == "while it is written" {
				return // the next rebuild begins anew
			}
			if name != "done" && !bytes.Equal(old, must(os.ReadFile(filepath.Join(dir, "journal.db"+asideSuffix+stamp)))(t)) {
				t.Error("the old journal is not aside as it was")
			}
		})
	}
}

func TestRebuildOfNothing(t *testing.T) {
	if _, err := Rebuild(ctx0, Options{Dir: t.TempDir()}, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := Rebuild(ctx0, Options{Dir: missing}, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it was made")
	}
	if _, err := Inspect(ctx0, missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("inspected: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if i, err := Inspect(ctx0, dir); err != nil || i.Sound {
		t.Errorf("an empty file: %+v, %v", i, err)
	}
}
