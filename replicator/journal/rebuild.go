package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Rebuilt tells what became of a journal that was rebuilt.
type Rebuilt struct {
	Path string `json:"path"`
	// Aside is where the old file is, with -wal and -shm beside it where it
	// had them; nothing is deleted. Empty: the journal was sound, and nothing
	// was changed.
	Aside string `json:"aside"`
	// Kept are the rows carried over, by table.
	Kept map[string]int64 `json:"kept"`
	// Lost are, by table, the rows that were read and made no sense, and Unread
	// the tables that could not be read to their ends.
	Lost   map[string]int64 `json:"lost"`
	Unread []string         `json:"unread"`
}

// Whole tells whether everything that is kept at all was.
func (r Rebuilt) Whole() bool { return len(r.Lost) == 0 && len(r.Unread) == 0 }

const (
	// A journal that is being written, and one that is whole and to take the
	// old one's place. The moment between is written into its name.
	newSuffix     = ".new"
	rebuiltSuffix = ".rebuilt-"
	asideSuffix   = ".broken-"
	stampLayout   = "20060102T150405.000000Z"
)

// Rebuild makes a new journal of what can be read of an embedded one that may
// be damaged, and sets that aside. What is carried over of records counts as
// unproven until a sweep has proven it again; sweeps and graces begin anew, and
// jobs that ran are due. A process that ends in the middle leaves the old
// journal, or one that the next Open puts into its place. A sound journal is
// left alone unless it is forced. It gives ErrLocked, ErrNewer, and
// fs.ErrNotExist where there is no journal.
func Rebuild(ctx context.Context, o Options, force bool) (r Rebuilt, err error) {
	if _, err := os.Stat(o.Dir); err != nil {
		return r, fmt.Errorf("rebuild journal: %w", err)
	}
	lock, err := lockFile(o.Dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	j := newJournal(o)
	if err := finishRebuild(j.path); err != nil { // of one that was interrupted
		return r, err
	}
	r = Rebuilt{Path: j.path, Kept: map[string]int64{}, Lost: map[string]int64{}, Unread: []string{}}
	found, err := Inspect(ctx, o.Dir)
	if err != nil || found.Sound && !force {
		return r, err
	}
	for _, suffix := range walFiles {
		if err := remove(j.path + newSuffix + suffix); err != nil {
			return r, err
		}
	}
	if err := r.write(ctx, j); err != nil {
		return r, errors.Join(fmt.Errorf("rebuild journal: %w", err), remove(j.path+newSuffix))
	}
	stamp := j.now().UTC().Format(stampLayout)
	if err := os.Rename(j.path+newSuffix, j.path+rebuiltSuffix+stamp); err != nil {
		return r, fmt.Errorf("rename the new journal: %w", err)
	}
	if err := syncDir(o.Dir); err != nil {
		return r, err
	}
	r.Aside = j.path + asideSuffix + stamp
	return r, finishRebuild(j.path)
}

// walFiles are a database's files beside itself, and itself last.
var walFiles = []string{"-wal", "-shm", ""}

// finishRebuild puts a rebuilt journal that is whole into its place, where
// there is one: the old files are set aside first, the log before the database,
// so that it is never read with another. Whatever of this was done before an
// interruption is done.
func finishRebuild(path string) error {
	found, err := filepath.Glob(escapeGlob(path) + rebuiltSuffix + "*")
	if err != nil || len(found) == 0 {
		return err
	}
	rebuilt := found[len(found)-1] // the latest
	stamp := strings.TrimPrefix(rebuilt, path+rebuiltSuffix)
	for _, suffix := range walFiles {
		err := os.Rename(path+suffix, path+asideSuffix+stamp+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the old journal aside: %w", err)
		}
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Rename(rebuilt, path); err != nil {
		return fmt.Errorf("put the new journal in place: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes renames last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// write makes the new journal beside the old one.
func (r *Rebuilt) write(ctx context.Context, old *Journal) (err error) {
	made := newJournal(Options{Dir: old.dir, Now: old.now})
	made.path = old.path + newSuffix
	if made.writeDB, err = sql.Open("sqlite", made.dsn("rwc")+"&_pragma=journal_mode(MEMORY)&_pragma=synchronous(OFF)"+writerPragmas); err != nil {
		return err
	}
	db := made.writeDB
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := made.raise(ctx, db); err != nil {
		return err
	}
	broken, err := old.openBroken(true)
	if err != nil {
		return err
	}
	defer func() { _ = broken.Close() }() // it only read
	if at, err := old.dialect.version(ctx, broken); err == nil && at > schemaVersion {
		return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
	}
	if err := r.carry(ctx, broken, db); err != nil {
		return err
	}
	for _, query := range []string{
		// What is carried over was proven by a journal that is not to be believed.
		`UPDATE registries SET trust = trust + 1`,
		// Nobody runs them any more.
		`UPDATE jobs SET state = 0, replica = '', epoch = 0, claimed_digest = '', pending_since = 0, next_attempt = 0 WHERE state = 1`,
		sqlRecountJobs,
	} {
		if _, err := db.ExecContext(ctx, query); err != nil {
			return classify(err)
		}
	}
	at := old.now().UTC()
	_, err = db.ExecContext(ctx, `INSERT INTO audits (id, at, actor, action, target, detail)
		SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4, $5 FROM audits`,
		at.UnixMicro(), "cli", "journal.rebuild", old.path, clip(r.summary(), maxMessage))
	if err != nil {
		return classify(err)
	}
	var said string
	if _, err := one(ctx, db, `PRAGMA quick_check(1)`, nil, &said); err != nil || said != "ok" {
		return fmt.Errorf("the new journal is not sound: %s: %w", clip(said, 200), errors.Join(err, fs.ErrInvalid))
	}
	return syncFile(made.path)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (r *Rebuilt) summary() string {
	if r.Whole() {
		return "all rows were carried over"
	}
	var b strings.Builder
	for _, s := range salvages {
		if n := r.Lost[s.table]; n > 0 {
			fmt.Fprintf(&b, "%d rows of %s made no sense; ", n, s.table)
		}
	}
	if len(r.Unread) > 0 {
		b.WriteString("not read to the end: " + strings.Join(r.Unread, ", "))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// carry copies what can be read and makes sense.
func (r *Rebuilt) carry(ctx context.Context, from, to *sql.DB) error {
	var registries, edges map[int64]bool
	for _, s := range salvages {
		if s.what == drop {
			continue
		}
		t, err := tableOf(ctx, to, s.table)
		if err != nil {
			return err
		}
		t.registries, t.edges = registries, edges
		c := &carrier{Rebuilt: r, table: t, to: to}
		if err := c.all(ctx, from); err != nil {
			return err
		}
		numbers := map[int64]bool{}
		switch t.name {
		case "registries":
			registries = numbers
		case "edges":
			edges = numbers
		default:
			continue
		}
		if err := each(ctx, to, `SELECT id FROM `+t.name, nil, func(scan scanner) error {
			var id int64
			err := scan(&id)
			numbers[id] = true
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
