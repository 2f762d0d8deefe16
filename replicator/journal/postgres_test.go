package journal

import (
	"context"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/journal/journaltest"
)

func TestPostgreSQL(t *testing.T) {
	testContract(t, func(t testing.TB) func(func() time.Time) (*Journal, error) {
		database, dir := journaltest.Database(t), t.TempDir()
		return func(now func() time.Time) (*Journal, error) {
			return Open(context.Background(), Options{Dir: dir, Database: func() (string, error) { return database, nil }, Now: now})
		}
	})
}
