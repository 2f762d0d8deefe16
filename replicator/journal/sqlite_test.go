package journal

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
)

func TestSQLite(t *testing.T) {
	testContract(t, func(t testing.TB) func(func() time.Time) (*Journal, error) {
		dir := t.TempDir()
		return func(now func() time.Time) (*Journal, error) {
			return Open(context.Background(), Options{Dir: dir, Now: now})
		}
	})
}

func TestTheDirectoryIsPrivateAndLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	j := must(Open(ctx0, Options{Dir: dir}))(t)
	info := must(os.Stat(dir))(t)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	_, err := Open(ctx0, Options{Dir: dir})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "pid") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again := must(Open(ctx0, Options{Dir: dir}))(t)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(ctx0, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	h := newHarness(t, func(testing.TB) func(func() time.Time) (*Journal, error) {
		return func(now func() time.Time) (*Journal, error) { return Open(ctx0, Options{Dir: dir, Now: now}) }
	})
	h.accept(h.pushed("v1", "one"))
	see := func(want int) {
		t.Helper()
		r := must(OpenReadOnly(ctx0, dir))(t)
		defer r.Close()
		jobs, _, err := r.Jobs(ctx0, JobFilter{})
		if err != nil || len(jobs) != want {
			t.Errorf("%d jobs, want %d: %v", len(jobs), want, err)
		}
		if _, err := r.Accept(ctx0, Intake{}); err == nil {
			t.Error("a read-only journal took a write")
		}
		if err := r.Run(ctx0); err == nil {
			t.Error("a read-only journal ran")
		}
	}
	see(1)
	r := must(OpenReadOnly(ctx0, dir))(t)
	defer r.Close()
	other := h.pushed("v2", "two")
	other.Destination = at("ap", "team/app")
	h.accept(other)
	if job, _, err := r.Jobs(ctx0, JobFilter{Tag: "v2"}); err != nil || len(job) != 1 || job[0].Destination.Registry != "ap" {
		t.Errorf("what was written since it was opened: %+v, %v", job, err)
	}
	h.stop()
	see(2)
}

// A directory that may not be written to is no riddle in SQLite's words.
func TestWhatCannotBeOpenedSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	j := must(Open(ctx0, Options{Dir: dir}))(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"journal.db-shm", "journal.db-wal"} { // what root is refused, too
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenReadOnly(ctx0, dir)
	if err == nil {
		_, _, err = r.Jobs(ctx0, JobFilter{})
		_ = r.Close()
	}
	if !errors.Is(err, errNoAccess) || !strings.Contains(err.Error(), "account that owns the data directory") {
		t.Errorf("reading: %v", err)
	}
	if _, err := Open(ctx0, Options{Dir: dir}); !errors.Is(err, errNoAccess) {
		t.Errorf("writing: %v", err)
	}
}

func TestDamageIsRefusedWithAWayOut(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"no database":    func(b []byte) []byte { return []byte(strings.Repeat("not a database\n", 1000)) },
		"half is gone":   func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"a page is lost": func(b []byte) []byte { copy(b[4096:], make([]byte, 4096)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := running1(t, Options{Dir: dir + "/made"})
			for i := range 200 {
				must(j.Accept(ctx0, benchIntake(i)))(t)
			}
			checkpointed(t, j, filepath.Join(dir, "journal.db"))
			file := filepath.Join(dir, "journal.db")
			if err := os.WriteFile(file, damage(must(os.ReadFile(file))(t)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(ctx0, Options{Dir: dir})
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "move journal.db") {
				t.Errorf("opened: %v", err)
			}
			if _, err := Open(ctx0, Options{Dir: dir}); errors.Is(err, ErrLocked) {
				t.Errorf("the lock was kept: %v", err)
			}
		})
	}
}

// checkpointed writes the journal as one file.
func checkpointed(t testing.TB, j *Journal, path string) {
	t.Helper()
	if _, err := j.readDB.ExecContext(ctx0, "VACUUM INTO '"+path+"'"); err != nil {
		db := must(sql.Open("sqlite", j.dsn("rw")))(t)
		defer db.Close()
		if _, err := db.ExecContext(ctx0, "VACUUM INTO '"+path+"'"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	j := must(Open(ctx0, Options{Dir: dir}))(t)
	if _, err := j.writer.ExecContext(ctx0, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx0, Options{Dir: dir}); !errors.Is(err, ErrNewer) {
		t.Errorf("opened: %v", err)
	}
	if _, err := OpenReadOnly(ctx0, dir); !errors.Is(err, ErrNewer) {
		t.Errorf("opened for reading: %v", err)
	}
}

func TestMigrationsAreAllKnown(t *testing.T) {
	for _, d := range []dialect{sqliteDialect, postgresDialect} {
		files := must(d.schema())(t)
		names, err := fs.Glob(files, "*.sql")
		if err != nil || len(names) != schemaVersion {
			t.Errorf("%d in %s, schemaVersion is %d: %v", len(names), d.migrations, schemaVersion, err)
		}
	}
}

func TestADiskThatIsFullLosesNothingAndHeals(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	must(j.Accept(ctx0, benchIntake(0)))(t)
	limit := func(pages string) {
		t.Helper()
		err := j.write(ctx0, true, func(b *batch) error {
			b.after = append(b.after, func() {
				if _, err := j.writer.ExecContext(ctx0, "PRAGMA max_page_count = "+pages); err != nil {
					t.Error(err)
				}
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("1") // no more than there are
	accepted := 1
	var full error
	for i := 1; full == nil && i < 2000; i++ {
		if _, full = j.Accept(ctx0, benchIntake(i)); full == nil {
			accepted++
		}
	}
	if full == nil || !strings.Contains(full.Error(), "no space") {
		t.Fatalf("a full disk said %v", full)
	}
	if err := j.Healthy(ctx0); err != nil {
		t.Logf("healthy on a full disk: %v", err)
	}
	limit("1000000")
	must(j.Accept(ctx0, benchIntake(5000)))(t)
	counts := must(j.JobCounts(ctx0))(t)
	if got := counts[replicator.Waiting][replicator.LaneWebhook]; got != int64(accepted+1) {
		t.Errorf("%d jobs, %d were accepted", got, accepted+1)
	}
}

// What a webhook is answered for has to outlive a loss of power.
func TestCommitsAreSynced(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal"} { // 2: FULL
		var got string
		if _, err := one(ctx0, j.writer, "PRAGMA "+pragma, nil, &got); err != nil || got != want {
			t.Errorf("%s is %q, %v", pragma, got, err)
		}
	}
}
