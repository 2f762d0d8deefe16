package journal

import (
	"embed"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrations embed.FS

// A dialect is what the engines do differently; all other SQL is in sql.go.
type dialect struct {
	goose      goose.Dialect
	migrations string // folder of the embedded migrations
	// hasSchema counts the tables of migrations, schemaAt reads the newest one.
	hasSchema, schemaAt string
	// skipLocked ends a select of rows to be claimed.
	skipLocked string
}

// sqliteDialect needs no row locks: the one writer holds the file.
var sqliteDialect = dialect{
	goose:      goose.DialectSQLite3,
	migrations: "migrations/sqlite",
	hasSchema:  `SELECT COUNT(*) FROM sqlite_schema WHERE name = 'goose_db_version'`,
	schemaAt:   `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1`,
}

// postgresDialect claims past rows that somebody holds by hand; replicas take
// turns anyway (pgTakeTurn).
var postgresDialect = dialect{
	goose:      goose.DialectPostgres,
	migrations: "migrations/postgres",
	hasSchema:  `SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'goose_db_version'`,
	schemaAt:   `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied`,
	skipLocked: " FOR UPDATE SKIP LOCKED",
}

func (d dialect) schema() (fs.FS, error) { return fs.Sub(migrations, d.migrations) }
