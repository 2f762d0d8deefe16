package journal

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
)

// schemaVersion is the newest migration this program knows.
const schemaVersion = 3

// migrate brings the schema up to date. A newer one is refused: this program
// would not keep what it does not know.
func (j *Journal) migrate(ctx context.Context, fresh bool) error {
	if !fresh {
		at, err := schemaAt(ctx, j.writeDB)
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
	files, err := j.dialect.schema()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(j.dialect.goose, j.writeDB, files,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", classify(err))
	}
	return nil
}

// schemaAt is the version a database is at, 0 where it has no schema yet.
func schemaAt(ctx context.Context, db *sql.DB) (int64, error) {
	var tables, at int64
	if _, err := one(ctx, db, `SELECT COUNT(*) FROM sqlite_schema WHERE name = 'goose_db_version'`, nil, &tables); err != nil {
		return 0, err
	}
	if tables == 0 {
		return 0, nil
	}
	_, err := one(ctx, db, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1`, nil, &at)
	return at, err
}

// checkSchema refuses to read another version's journal.
func (j *Journal) checkSchema(ctx context.Context, db *sql.DB) error {
	at, err := schemaAt(ctx, db)
	switch {
	case err != nil:
		return err
	case at > schemaVersion:
		return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
	case at < schemaVersion:
		return fmt.Errorf("the journal has schema %d, not %d: start this version of twinport once to bring it up to date", at, schemaVersion)
	}
	return nil
}
