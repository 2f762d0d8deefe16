package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/twinport/twinport/replicator"
)

// cutAll has the database end all idle connections a journal reads over, as at
// a restart.
func (c *crew) cutAll(h *harness) {
	c.Helper()
	by := must(pgx.Connect(ctx0, c.database))(c)
	defer by.Close(ctx0)
	var conns []*sql.Conn
	var pids []int64
	for range readers {
		conn := must(h.readDB.Conn(context.WithValue(ctx0, doubted{}, true)))(c)
		conns, pids = append(conns, conn), append(pids, backend(c.T, conn))
	}
	for _, conn := range conns {
		h.ok(conn.Close()) // it goes back to the pool
	}
	c.terminate(by, pids...)
}

func backend(t *testing.T, db queryer) (pid int64) {
	t.Helper()
	if _, err := one(ctx0, db, "SELECT pg_backend_pid()", nil, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// terminate ends connections at the database, and waits until they have ended.
func (c *crew) terminate(by *pgx.Conn, pids ...int64) {
	c.Helper()
	var ended bool
	err := by.QueryRow(ctx0, "SELECT bool_and(pg_terminate_backend(pid::int, 60000)) FROM unnest($1::bigint[]) pid", pids).Scan(&ended)
	if err != nil || !ended {
		c.Fatalf("end connections %v: %t, %v", pids, ended, err)
	}
}

func TestReadsOutliveConnectionsThatAreCut(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	h.accept(c.job(h, "v1"))
	h.finish(c.claims(h)[0], func(o *Outcome) {
		o.Records = []replicator.Record{h.record("v1", "v1")}
		o.Findings = []replicator.Finding{{Kind: replicator.FindingDrift, Registry: "us"}}
	})
	for name, read := range map[string]func() (int, error){
		"jobs": func() (int, error) {
			jobs, err := first(h.Jobs(ctx0, JobFilter{Route: "prod"}))
			return len(jobs), err
		},
		"findings": func() (int, error) {
			findings, err := first(h.Findings(ctx0, FindingFilter{}))
			return len(findings), err
		},
		"standings": func() (int, error) {
			standings, err := h.Standings(ctx0)
			return len(standings), err
		},
		"record": func() (int, error) {
			_, known, err := h.Record(ctx0, usID, "team/app", "v1")
			return int(flag(known)), err
		},
	} {
		c.cutAll(h)
		if n, err := read(); err != nil || n != 1 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestASnapshotThatIsCutIsReadAnew(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	by := must(pgx.Connect(ctx0, c.database))(t)
	defer by.Close(ctx0)
	read := func(cuts int) (runs int, err error) {
		err = h.snapshot(ctx0, func(in *snapshot) error {
			if runs++; runs <= cuts {
				c.terminate(by, backend(t, in.db))
			}
			_, err := in.standings(ctx0)
			return err
		})
		return runs, err
	}
	if runs, err := read(1); runs != 2 || err != nil {
		t.Errorf("cut once: asked %d times, %v", runs, err)
	}
	if runs, err := read(2); runs != 2 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("cut twice: asked %d times, %v", runs, err)
	}
}

func TestRowsAreGivenOnce(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	by := must(pgx.Connect(ctx0, c.database))(t)
	defer by.Close(ctx0)
	n := 0
	err := each(ctx0, h.reads, "SELECT pg_backend_pid(), repeat('x', 1000) FROM generate_series(1, 100000)", nil, func(scan scanner) error {
		var pid int64
		var text string
		err := scan(&pid, &text)
		if n++; n == 1 {
			c.terminate(by, pid)
		}
		return err
	})
	if n == 0 || n >= 100_000 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestWhatIsNoCutIsAskedOnce(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	gone, cancel := context.WithCancelCause(ctx0)
	why := errors.New("who asked has left")
	cancel(why)
	runs := 0
	err := h.shared.db.twice(gone, func(ctx context.Context) error {
		runs++
		return h.shared.db.classify(io.ErrUnexpectedEOF)
	})
	if runs != 1 || !errors.Is(err, why) {
		t.Errorf("without a context: asked %d times, %v", runs, err)
	}
	if _, err := one(gone, h.reads, pgVersion, nil, new(int64)); !errors.Is(err, why) {
		t.Errorf("a read without a context: %v", err)
	}
	if err := h.snapshot(gone, func(*snapshot) error { return nil }); !errors.Is(err, why) {
		t.Errorf("a snapshot without a context: %v", err)
	}
	if _, err := one(ctx0, h.reads, "SELECT 1/0", nil, new(int64)); err == nil || isUnavailable(err) {
		t.Errorf("refused: %v", err)
	}
	said := func(severity, code string) error {
		return fmt.Errorf("query: %w", &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "m"})
	}
	for _, test := range []struct {
		name string
		err  error
		cut  bool
	}{
		{"an administrator's word", said("FATAL", "57P01"), true},
		{"idle in a transaction", said("FATAL", "25P03"), true},
		{"a statement that took too long", said("ERROR", "57014"), false},
		{"a lock", said("ERROR", "55P03"), false},
		{"without a word", io.ErrUnexpectedEOF, true},
		{"reset", &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, true},
		{"no time left", fmt.Errorf("timeout: %w", context.DeadlineExceeded), false},
		{"nobody there", unreachable(t), false},
	} {
		err := h.shared.db.classify(test.err)
		var cut *cutError
		if !isUnavailable(err) || errors.As(err, &cut) != test.cut {
			t.Errorf("%s: %#v", test.name, err)
		}
	}
}

// unreachable is the error of a connection that could not be made.
func unreachable(t *testing.T) error {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	address := url.URL{Scheme: "postgres", Host: l.Addr().String(), Path: "/x"}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx0, time.Minute)
	defer cancel()
	_, err := pgx.Connect(ctx, address.String())
	if err == nil {
		t.Fatal("somebody is there")
	}
	return err
}
