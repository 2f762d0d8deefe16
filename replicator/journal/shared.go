package journal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// What only replicas ask of their database.
const (
	pgReplicas  = `SELECT id, epoch, until, number, works FROM replicas`
	pgWorking   = `SELECT COUNT(*) FROM replicas WHERE works = 1`
	pgHeartbeat = `UPDATE replicas SET until = $3 WHERE id = $1 AND epoch = $2 RETURNING epoch`
	pgJoin      = `INSERT INTO replicas (id, epoch, until, number, works) VALUES ($1, $2, $3, $4, $5)`
	pgLeave     = `DELETE FROM replicas WHERE id = $1 AND epoch = $2`
	pgRunningOf = `SELECT id FROM jobs WHERE state = 1 AND replica = $1 ORDER BY id`
	pgLeader    = `SELECT replica, epoch FROM leaders WHERE one = 1`
	pgLead      = `INSERT INTO leaders (one, replica, epoch) VALUES (1, $1, $2)
		ON CONFLICT (one) DO UPDATE SET replica = excluded.replica, epoch = excluded.epoch`
	pgSize = `SELECT COALESCE(SUM(pg_total_relation_size(oid)), 0) FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`
)

// A shared is this process's part in a journal that several replicas share.
type shared struct {
	db     *postgres
	role   Role
	buried func(replica string, jobs int)

	silent  atomic.Int64 // when the transaction under way began, nanoseconds since 1970; 0: none
	leads   atomic.Int64 // microseconds: we lead until then
	sharers atomic.Int64 // replicas that work, we among them

	// What follows is the committer's alone.
	session *pgSession
	peers   map[string]peer
	tended  time.Time // when the peers were last looked at
}

// A peer is another replica, as it was when it last showed a sign of life.
type peer struct {
	epoch, until int64
	since        time.Time // by our own clock
}

// openShared joins the replicas of a database.
func openShared(ctx context.Context, o Options) (*Journal, error) {
	db, err := newPostgres(o.Database)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := newJournal(o)
	j.dialect = postgresDialect
	if o.Role == Serves {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		if j.lock, err = lockFile(o.Dir); err != nil {
			return nil, err
		}
	}
	j.shared = &shared{db: db, role: o.Role, buried: o.TookOver, peers: map[string]peer{}}
	if err := j.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.Close())
	}
	return j, nil
}

// OpenSharedReadOnly opens a database's journal for reading. It gives
// fs.ErrNotExist where there is none.
func OpenSharedReadOnly(ctx context.Context, o Options) (*Journal, error) {
	db, err := newPostgres(o.Database)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := newJournal(o)
	j.dialect = postgresDialect
	j.shared = &shared{db: db, role: Steers}
	j.readFrom(db)
	err = j.checkSchema(ctx, j.reads)
	if err == nil {
		_, err = j.names(ctx)
	}
	var working int64
	if err == nil {
		_, err = one(ctx, j.reads, pgWorking, nil, &working)
		j.shared.sharers.Store(working + 1) // and who reads may ask registries, too
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.Close())
	}
	return j, nil
}

func (j *Journal) readFrom(db *postgres) {
	j.readDB = db.pool()
	j.reads = patient{j.readDB, db}
}

func (j *Journal) join(ctx context.Context) error {
	db := j.shared.db
	j.readFrom(db)
	if err := db.place(ctx, j.reads); err != nil {
		return err
	}
	if err := j.migrateShared(ctx); err != nil {
		return err
	}
	if err := j.recall(ctx, j.reads); err != nil {
		return err
	}
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	j.replica = replicaName(random[:])
	j.shared.session = &pgSession{db: db}
	j.session = j.shared.session
	return j.transaction([]*request{{do: func(b *batch) error { return b.enter(1) }}})
}

// replicaName is the machine's name, so that people know whose jobs these are.
func replicaName(random []byte) string {
	host, _ := os.Hostname() // an unnamed host is left out
	host = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r
		}
		return -1
	}, host)
	return strings.TrimPrefix(clip(host, 63)+"-"+hex.EncodeToString(random), "-")
}

// enter makes this process one of the replicas, under an epoch it never had.
func (b *batch) enter(epoch int64) error {
	s := b.j.shared
	used := map[int64]bool{}
	working := int64(0)
	err := b.each(pgReplicas, nil, func(scan scanner) error {
		var id string
		var epoch, until, number, works int64
		err := scan(&id, &epoch, &until, &number, &works)
		used[number] = true
		working += works
		return err
	})
	if err != nil {
		return fmt.Errorf("read the replicas: %w", err)
	}
	number, err := freeNumber(used)
	if err != nil {
		return err
	}
	until := b.now + b.j.leaseTime().Microseconds()
	works := flag(s.role != Steers)
	if err := b.exec(pgJoin, b.j.replica, epoch, until, number, works); err != nil {
		return fmt.Errorf("join the replicas: %w", err)
	}
	b.after = append(b.after, func() {
		b.j.ids.setReplica(number)
		b.j.epoch.Store(epoch)
		b.j.lease.Store(until)
		s.sharers.Store(max(working+works, 1))
		s.peers, s.tended = map[string]peer{}, time.Time{}
	})
	return nil
}

// freeNumber is one that no living replica's ids have; not the next one, so
// that two do not follow each other closely under the same.
func freeNumber(used map[int64]bool) (int64, error) {
	const numbers = 1 << replicaBits
	var random [2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return 0, err
	}
	first := int64(random[0])<<8 | int64(random[1])
	for i := range int64(numbers) {
		if n := (first + i) % numbers; !used[n] {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%d replicas share the journal: no more can", numbers)
}

// leave ends this process's part: what it still has is anybody's at once.
// Where the database does not answer, the others find out by themselves.
func (s *shared) leave(j *Journal) error {
	if s.session == nil {
		return nil
	}
	err := j.transaction([]*request{{do: func(b *batch) error {
		_, err := b.bury(j.replica, j.epoch.Load())
		return err
	}}})
	s.session.drop(context.Background())
	s.session, j.session = nil, nil
	if isUnavailable(err) {
		return nil
	}
	return err
}

// bury takes a replica out and hands back what it ran: from then on nothing it
// writes under that epoch is taken. It tells how many jobs those were.
func (b *batch) bury(replica string, epoch int64) (int, error) {
	n, err := b.execCount(pgLeave, replica, epoch)
	if err != nil {
		return 0, fmt.Errorf("take out replica %s: %w", replica, err)
	}
	if n == 0 {
		return 0, nil // somebody else has
	}
	var ids []int64
	err = b.each(pgRunningOf, []any{replica}, func(scan scanner) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("list the jobs of replica %s: %w", replica, err)
	}
	jobs := 0
	for _, id := range ids {
		r, err := b.byNumber(id)
		if err != nil {
			return jobs, err
		}
		if r == nil || r.state != running || r.replica != replica {
			continue
		}
		b.handBack(r)
		jobs++
	}
	return jobs, nil
}

// silentAtMost is how long the database may take for a transaction before what
// is taken in is refused at once: whoever sends it has better things to do than
// to wait.
const silentAtMost = 3 * time.Second

// refuses gives ErrUnavailable while the database is silent.
func (s *shared) refuses(completion bool) error {
	if s == nil || completion {
		return nil
	}
	began := s.silent.Load()
	if began == 0 || time.Since(time.Unix(0, began)) < silentAtMost {
		return nil
	}
	return fmt.Errorf("%w: no answer for %s", ErrUnavailable, silentAtMost)
}

// names is the catalog as of now.
func (s *shared) names(ctx context.Context, j *Journal) (*catalog, error) {
	return s.namesIn(ctx, j, j.reads)
}

func (s *shared) namesIn(ctx context.Context, j *Journal, db queryer) (*catalog, error) {
	var version int64
	if _, err := one(ctx, db, pgVersion, nil, &version); err != nil {
		return nil, fmt.Errorf("read the registries' version: %w", err)
	}
	known := j.catalog.Load()
	if known.version == version {
		return known, nil
	}
	c, err := loadCatalog(ctx, db)
	if err != nil {
		return nil, err
	}
	// At least of that version: what is newer is read once more, in vain.
	c.version = version
	if version > known.version {
		j.catalog.CompareAndSwap(known, c)
	}
	return c, nil
}

func (s *shared) size(j *Journal) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var size int64
	if _, err := one(ctx, j.reads, pgSize, nil, &size); err != nil {
		return 0
	}
	return size
}
