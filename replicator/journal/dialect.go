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
	name       string
	goose      goose.Dialect
	migrations string // folder of the embedded migrations
	begin      string
	// skipLocked ends a select of rows to be claimed, lock one of rows to be changed.
	skipLocked, lock string
}

// sqliteDialect needs no row locks: the one writer holds the file.
var sqliteDialect = dialect{
	name:       "sqlite",
	goose:      goose.DialectSQLite3,
	migrations: "migrations/sqlite",
	begin:      "BEGIN IMMEDIATE",
}

func (d dialect) schema() (fs.FS, error) { return fs.Sub(migrations, d.migrations) }
