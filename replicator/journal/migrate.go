package journal

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// schemaVersion is the newest migration this program knows.
const schemaVersion = 4

// migrate brings the schema up to date. A newer one is refused: this program
// would not keep what it does not know.
func (j *Journal) migrate(ctx context.Context, fresh bool) error {
	if !fresh {
		at, err := j.dialect.version(ctx, j.writeDB)
		if err != nil {
			return err
		}
		if at > schemaVersion {
			return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
		}
		if at == schemaVersion {
			return nil
		}
	}
	return j.raise(ctx, j.writeDB)
}

// raise applies the migrations that are missing.
func (j *Journal) raise(ctx context.Context, db *sql.DB) error {
	files, err := j.dialect.schema()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(j.dialect.goose, db, files,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", classify(err))
	}
	return nil
}

// migrateShared does so once, however many replicas start at the same time:
// the others wait and find it done. Replicas that run meanwhile go on by the
// schema they know, since a migration only adds to it.
func (j *Journal) migrateShared(ctx context.Context) error {
	db := j.shared.db.patientPool()
	defer func() { _ = db.Close() }() // nothing of ours depends on it
	turn, err := db.Conn(ctx)
	if err != nil {
		return j.shared.db.classify(err)
	}
	defer func() { _ = turn.Close() }() // with it ends the lock
	if _, err := turn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, j.shared.db.key); err != nil {
		return j.shared.db.classify(err)
	}
	at, err := j.dialect.version(ctx, turn)
	switch {
	case err != nil:
		return j.shared.db.classify(err)
	case at > schemaVersion:
		return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
	case at < schemaVersion:
		if err := j.raise(ctx, db); err != nil {
			return j.shared.db.classify(err)
		}
	}
	_, err = turn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, j.shared.db.key)
	return j.shared.db.classify(err)
}

// version is the migration a database is at, 0 where it has no schema yet.
func (d dialect) version(ctx context.Context, db queryer) (int64, error) {
	var tables, at int64
	if _, err := one(ctx, db, d.hasSchema, nil, &tables); err != nil {
		return 0, err
	}
	if tables == 0 {
		return 0, nil
	}
	_, err := one(ctx, db, d.schemaAt, nil, &at)
	return at, err
}

// checkSchema refuses to read another version's journal.
func (j *Journal) checkSchema(ctx context.Context, db queryer) error {
	at, err := j.dialect.version(ctx, db)
	switch {
	case err != nil:
		return err
	case at > schemaVersion:
		return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
	case at == 0 && j.shared != nil:
		return fmt.Errorf("the database holds no journal: %w", fs.ErrNotExist)
	case at < schemaVersion:
		return fmt.Errorf("the journal has schema %d, not %d: start this version of twinport once to bring it up to date", at, schemaVersion)
	}
	return nil
}
