// Package journal is the only durable state: desired state with leases, not a
// message log. It keeps what is to be copied and how that stands, what is
// proven, each tag's history, bases and intents of registries that feed each
// other, mount candidates, findings, sweeps and audit entries. Registries are
// the truth: a lost journal costs a sweep, never an image.
package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/twinport/twinport/replicator"
)

// Options say where a journal is.
type Options struct {
	// Dir is the data directory, made where absent.
	Dir string
	// Database gives the address (postgres://…) of a journal that several
	// replicas share; nil: SQLite in Dir. It is asked again at each connection,
	// for user and password alone, and nothing of it is ever told.
	Database func() (string, error)
	// Role is what this process does with a shared journal.
	Role Role
	// TookOver, where not nil, is told of each dead replica whose jobs were
	// handed back.
	TookOver func(replica string, jobs int)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Step, where not nil, is called at each stage of a write. It may wait, and
	// its error is the write's: tests pace a journal by it, and end it.
	Step func(context.Context, Stage) error
}

// A Role is what a process is among the replicas that share a journal; alone,
// it means nothing.
type Role int

const (
	// Serves takes the data directory, works, and may be the one that sweeps.
	Serves Role = iota
	// Works copies, and has a share of the registries' budgets.
	Works
	// Steers only writes what a person asked for.
	Steers
)

// What a journal cannot be opened for; the words say what to do.
var (
	// ErrCorrupt: the database file is damaged.
	ErrCorrupt = errors.New("the journal is damaged: `twinport journal rebuild` sets it aside and keeps what can be read " +
		"(or move journal.db and its -wal and -shm files away); the registries are the truth, a sweep makes up for what is lost")
	// ErrNewer: the journal was written by a newer twinport.
	ErrNewer = errors.New("the journal was written by a newer twinport: start that version, " +
		"or begin a new journal (move journal.db away, or name an empty database): a sweep fills it")
)

// A Journal is safe for concurrent use. Writes wait for Run.
type Journal struct {
	dir, path string
	dialect   dialect
	now       func() time.Time
	step      func(context.Context, Stage) error
	lock      *os.File // of the data directory
	writeDB   *sql.DB
	writer    *sql.Conn // SQLite's one that writes
	readDB    *sql.DB
	reads     queryer              // readDB, with the engine's patience
	stmts     map[string]*sql.Stmt // of writer, the committer's
	session   session              // the committer's; nil: for reading only
	shared    *shared              // with other replicas; nil: the journal is this process's alone
	ids       ids
	replica   string
	epoch     atomic.Int64
	lease     atomic.Int64 // microseconds: our lease holds until then

	catalog     atomic.Pointer[catalog]
	unwanted    atomic.Pointer[map[int64]bool] // edges no route of the config wants
	fingerprint atomic.Pointer[string]

	completions, intakes chan *request
	changed              chan struct{}
	running              atomic.Bool
	gate                 sync.RWMutex // held for reading while enqueuing
	closing, ended       chan struct{}
	closeOnce, endOnce   sync.Once

	// What follows is the committer's alone.
	turn         int                      // claims handed out, for the lower lanes' share
	located      map[locationKey]struct{} // saved lately
	findingCount int64

	lastClaim atomic.Int64 // the Now of the last Claim
	pace      pace         // of listings without an index
}

// Open takes the data directory for this process, opens or makes the journal
// in it, brings its schema up to date, raises this replica's epoch and hands
// back the jobs that were running when the last process ended. It gives
// ErrLocked, ErrCorrupt and ErrNewer.
//
// With a Database it joins the replicas there instead; the directory is taken
// by who serves alone. ErrUnavailable where the database does not answer.
func Open(ctx context.Context, o Options) (*Journal, error) {
	if o.Dir == "" {
		return nil, errors.New("open journal: no data directory")
	}
	if o.Database != nil {
		return openShared(ctx, o)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockFile(o.Dir)
	if err != nil {
		return nil, err
	}
	j := newJournal(o)
	j.lock = lock
	if err := finishRebuild(j.path); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	if err := j.openWriter(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", j.path, err), j.Close())
	}
	return j, nil
}

// OpenReadOnly opens a journal for reading, whether or not a daemon has it
// open. It gives fs.ErrNotExist where there is none.
func OpenReadOnly(ctx context.Context, dir string) (*Journal, error) {
	j := newJournal(Options{Dir: dir})
	if _, err := os.Stat(j.path); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := j.openReader(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", j.path, err), j.Close())
	}
	return j, nil
}

func newJournal(o Options) *Journal {
	if o.Now == nil {
		o.Now = time.Now
	}
	j := &Journal{
		dir:         o.Dir,
		path:        filepath.Join(o.Dir, "journal.db"),
		dialect:     sqliteDialect,
		now:         o.Now,
		step:        o.Step,
		stmts:       map[string]*sql.Stmt{},
		replica:     "local",
		completions: make(chan *request, queueSize),
		intakes:     make(chan *request, queueSize),
		changed:     make(chan struct{}, 1),
		closing:     make(chan struct{}),
		ended:       make(chan struct{}),
		located:     map[locationKey]struct{}{},
		pace:        pace{rows: 5000, age: snapshotAge},
	}
	if j.step == nil {
		j.step = func(context.Context, Stage) error { return nil }
	}
	j.catalog.Store(newCatalog())
	j.unwanted.Store(&map[int64]bool{})
	j.fingerprint.Store(new(string))
	return j
}

// Pages kept in memory: 16 MiB by the writer, 2 MiB by each reader. The log is
// copied into the database every 16 MiB: rarer copies share more pages.
const (
	writerPragmas = "&_pragma=cache_size(-16384)&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(67108864)"
	readers       = 4
)

func (j *Journal) dsn(mode string) string {
	path := url.URL{Scheme: "file", Opaque: (&url.URL{Path: j.path}).EscapedPath()}
	return path.String() + "?mode=" + mode + "&_pragma=busy_timeout(5000)"
}

func (j *Journal) openWriter(ctx context.Context) error {
	fresh := false
	if info, err := os.Stat(j.path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		fresh = true
	}
	var err error
	j.writeDB, err = sql.Open("sqlite", j.dsn("rwc")+"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"+writerPragmas)
	if err != nil {
		return err
	}
	j.writeDB.SetMaxOpenConns(1)
	if !fresh {
		if err := j.check(ctx); err != nil {
			return err
		}
	}
	if err := j.migrate(ctx, fresh); err != nil {
		return err
	}
	if j.writer, err = j.writeDB.Conn(ctx); err != nil {
		return classify(err)
	}
	j.session = sqliteSession{j}
	if err := j.start(ctx); err != nil {
		return err
	}
	return j.openReader(ctx)
}

// checkAtMost is the size up to which a journal is read whole before it is believed.
const checkAtMost = 32 << 20

// check refuses a file that is no journal, or a damaged one.
func (j *Journal) check(ctx context.Context) error {
	info, err := os.Stat(j.path)
	if err != nil {
		return err
	}
	query := "SELECT COUNT(*) FROM sqlite_schema"
	if info.Size() <= checkAtMost {
		query = "PRAGMA quick_check(1)"
	}
	var said string
	if _, err := one(ctx, j.writeDB, query, nil, &said); err != nil {
		return err
	}
	if info.Size() <= checkAtMost && said != "ok" {
		return fmt.Errorf("%w (%s)", ErrCorrupt, clip(said, 200))
	}
	return nil
}

// start reads what is kept in memory, raises the epoch and hands back what ran.
func (j *Journal) start(ctx context.Context) error {
	c, err := loadCatalog(ctx, j.writer)
	if err != nil {
		return err
	}
	j.catalog.Store(c)
	if err := j.recall(ctx, j.writer); err != nil {
		return err
	}
	raise := &request{do: func(b *batch) error {
		until := b.now + lease.Microseconds()
		var epoch int64
		if err := b.row(sqlRaiseEpoch, []any{j.replica, until}, &epoch); err != nil {
			return fmt.Errorf("raise the epoch: %w", err)
		}
		b.after = append(b.after, func() {
			j.epoch.Store(epoch)
			j.lease.Store(until)
		})
		return b.handBackAll()
	}}
	return j.transaction([]*request{raise})
}

// recall reads what keeps new ids above those that exist, and counts findings.
func (j *Journal) recall(ctx context.Context, db queryer) error {
	for _, query := range []string{sqlMaxJobID, sqlMaxTagState, sqlMaxFinding, sqlMaxAudit} {
		var id int64
		if _, err := one(ctx, db, query, nil, &id); err != nil {
			return fmt.Errorf("read the last id: %w", err)
		}
		j.ids.seen(id)
	}
	if _, err := one(ctx, db, sqlCountFindings, nil, &j.findingCount); err != nil {
		return fmt.Errorf("count findings: %w", err)
	}
	return nil
}

func (j *Journal) openReader(ctx context.Context) error {
	mode := "ro"
	if j.lock != nil {
		mode = "rw"
	}
	var err error
	if j.readDB, err = sql.Open("sqlite", j.dsn(mode)+"&_query_only=1&_pragma=cache_size(-2048)"); err != nil {
		return err
	}
	j.readDB.SetMaxOpenConns(readers)
	j.readDB.SetMaxIdleConns(readers)
	j.reads = j.readDB
	if j.lock != nil {
		return classify(j.readDB.PingContext(ctx))
	}
	if err := j.checkSchema(ctx, j.readDB); err != nil {
		return err
	}
	c, err := loadCatalog(ctx, j.reads)
	if err != nil {
		return err
	}
	j.catalog.Store(c)
	return nil
}

// Close ends what Run left: it answers who still waits with ErrClosed, closes
// the files and gives the data directory free. Call it after Run has returned.
func (j *Journal) Close() error {
	j.refuse()
	if j.running.Load() {
		<-j.ended
	}
	j.end()
	var errs []error
	if j.shared != nil {
		errs = append(errs, j.shared.leave(j))
	}
	for _, s := range j.stmts {
		errs = append(errs, s.Close())
	}
	j.stmts = map[string]*sql.Stmt{}
	// The readers first, so that the writer, as the last, leaves one file.
	if j.readDB != nil {
		errs = append(errs, j.readDB.Close())
	}
	if j.writer != nil {
		if err := j.writer.Close(); !errors.Is(err, sql.ErrConnDone) {
			errs = append(errs, err)
		}
	}
	if j.writeDB != nil {
		errs = append(errs, j.writeDB.Close())
	}
	if j.lock != nil {
		if err := j.lock.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Path is the database file; where replicas share a database, it is what
// would stand in the data directory.
func (j *Journal) Path() string { return j.path }

// Size is how many bytes the journal takes on disk, its log included.
func (j *Journal) Size() int64 {
	if j.shared != nil {
		return j.shared.size(j)
	}
	var size int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(j.path + suffix); err == nil {
			size += info.Size()
		}
	}
	return size
}

// Changed gets a signal when something may have become due.
func (j *Journal) Changed() <-chan struct{} { return j.changed }

// Healthy makes one real write; nil means that the journal commits.
func (j *Journal) Healthy(ctx context.Context) error {
	if err := j.write(ctx, false, func(b *batch) error { return b.heartbeat() }); err != nil {
		return fmt.Errorf("write to the journal: %w", err)
	}
	return nil
}

// names is the catalog as of now; who only reads, or shares the journal,
// cannot know when it changed.
func (j *Journal) names(ctx context.Context) (*catalog, error) {
	switch {
	case j.shared != nil:
		return j.shared.names(ctx, j)
	case j.session != nil:
		return j.catalog.Load(), nil
	}
	return loadCatalog(ctx, j.reads)
}

// namesIn is the catalog as of a snapshot.
func (j *Journal) namesIn(ctx context.Context, db queryer) (*catalog, error) {
	if j.shared != nil {
		return j.shared.namesIn(ctx, j, db)
	}
	return loadCatalog(ctx, db)
}

func (j *Journal) isUnwanted(edge int64) bool { return (*j.unwanted.Load())[edge] }

// classify tells damage and a full disk from other errors.
func classify(err error) error {
	var fault *sqlite.Error
	if err == nil || !errors.As(err, &fault) || errors.Is(err, ErrCorrupt) {
		return err
	}
	// SQLITE_READONLY, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_NOTADB
	const readOnly, corrupt, full, cannotOpen, notDatabase = 8, 11, 13, 14, 26
	switch fault.Code() & 0xff {
	case corrupt, notDatabase:
		return fmt.Errorf("%w (%w)", ErrCorrupt, err)
	case full:
		return fmt.Errorf("no space is left for the journal: %w", err)
	case readOnly, cannotOpen:
		return fmt.Errorf("%w (%w)", errNoAccess, err)
	}
	return err
}

// errNoAccess: even who only reads a journal writes beside it.
var errNoAccess = errors.New("the journal's files cannot be opened here: even for reading, SQLite keeps journal.db-shm beside them; " +
	"run this as the account that owns the data directory, with its filesystem writable, or while the daemon runs, which then answers")

// What is kept of texts from outside, in bytes.
const (
	maxName    = 512 // repositories, tags, digests, names
	maxMessage = 2000
)

// clip bounds a text without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// checkPlace says what is wrong with a place, if anything.
func checkPlace(p replicator.Place) error {
	switch {
	case p.Identity == "":
		return fmt.Errorf("registry %.64q has no identity", p.Registry)
	case p.Repository == "":
		return fmt.Errorf("no repository at registry %.64q", p.Registry)
	case len(p.Repository) > maxName || len(p.Identity) > maxName || len(p.Registry) > maxName:
		return fmt.Errorf("place %.64q/%.64q is over %d bytes", p.Registry, p.Repository, maxName)
	}
	return nil
}
