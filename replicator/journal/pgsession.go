package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

const (
	// transactionTime bounds one transaction as seen from here: a database
	// behind a network that swallows what is sent must not hold the committer.
	transactionTime = 10 * time.Second
	// queueAtMost is how many statements are put off before they are sent.
	queueAtMost = 1000
)

// Statements of the session itself. The lock makes writers take turns across
// all processes, as the one connection does within SQLite: what a batch has
// read stays true until it commits, whatever it is about. It is the
// transaction's, so that it ends with it, however that ends.
const (
	pgTakeTurn = `SELECT pg_advisory_xact_lock($1)`
	// We count the jobs that we write, so that no trigger need.
	pgCounts  = `SET LOCAL twinport.counts = 'kept'`
	pgVersion = `SELECT version FROM shared WHERE one = 1`
	pgChanged = `UPDATE shared SET version = version + 1 WHERE one = 1`
	pgNotify  = `SELECT pg_notify($1, '')`
)

// A pgSession is one connection to PostgreSQL, made anew where it broke.
// Statements without an answer travel with the next one that has one: a batch
// costs a handful of round trips, however many rows it writes.
type pgSession struct {
	db   *postgres
	conn *pgx.Conn

	cancel context.CancelFunc // of the transaction's context
	ctx    context.Context    //nolint:containedctx // one transaction's, from begin to its end
	queue  *pgx.Batch
}

// begin sends nothing yet: lock and first questions are one round trip.
func (s *pgSession) begin(ctx context.Context) error {
	s.ctx, s.cancel = context.WithTimeout(ctx, transactionTime)
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := s.db.connect(s.ctx)
		if err != nil {
			s.cancel()
			return err
		}
		s.conn = conn
	}
	s.queue = &pgx.Batch{}
	s.queue.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	s.queue.Queue(pgCounts)
	s.queue.Queue(pgTakeTurn, s.db.key)
	return nil
}

func (s *pgSession) exec(_ context.Context, query string, args []any) error {
	s.queue.Queue(query, clean(args)...)
	if s.queue.Len() < queueAtMost {
		return nil
	}
	return s.send(nil)
}

func (s *pgSession) execCount(_ context.Context, query string, args []any) (n int64, err error) {
	s.queue.Queue(query, clean(args)...)
	err = s.send(func(results pgx.BatchResults) error {
		tag, err := results.Exec()
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

func (s *pgSession) each(_ context.Context, query string, args []any, f func(scan scanner) error) error {
	s.queue.Queue(query, clean(args)...)
	return s.send(func(results pgx.BatchResults) error { return eachRow(results, f) })
}

func eachRow(results pgx.BatchResults, f func(scan scanner) error) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return &readError{err}
		}
	}
	return rows.Err()
}

func (s *pgSession) row(ctx context.Context, query string, args []any, f func(scan scanner) error) error {
	found := false
	err := s.each(ctx, query, args, func(scan scanner) error {
		if found {
			return nil
		}
		found = true
		return f(scan)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// all asks several questions in one round trip.
func (s *pgSession) all(questions []question) error {
	if len(questions) == 0 {
		return nil
	}
	for _, q := range questions {
		s.queue.Queue(q.query, clean(q.args)...)
	}
	return s.sendLast(len(questions), func(results pgx.BatchResults) error {
		for _, q := range questions {
			if err := eachRow(results, q.each); err != nil {
				return err
			}
		}
		return nil
	})
}

// A question is a query and what is done with each of its rows.
type question struct {
	query string
	args  []any
	each  func(scan scanner) error
}

// send sends what waits in the queue; last reads the answer of the last of it.
func (s *pgSession) send(last func(pgx.BatchResults) error) error {
	n := 1
	if last == nil {
		n = 0
	}
	return s.sendLast(n, last)
}

func (s *pgSession) sendLast(n int, last func(pgx.BatchResults) error) error {
	queue := s.queue
	s.queue = &pgx.Batch{}
	if s.conn == nil {
		return fmt.Errorf("%w: the connection broke", ErrUnavailable)
	}
	results := s.conn.SendBatch(s.ctx, queue)
	var err error
	for range queue.Len() - n {
		if _, err = results.Exec(); err != nil {
			break
		}
	}
	if err == nil && last != nil {
		err = last(results)
	}
	// The first error is the one that tells; Close repeats it.
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	var read *readError
	if errors.As(err, &read) {
		return read.error
	}
	if err = s.db.classify(err); isUnavailable(err) {
		s.drop(s.ctx)
	}
	return err
}

// A readError is of who reads a row, not of the database.
type readError struct{ error }

// commit sends what is left and the commit in one round trip. An error of kind
// ErrUnavailable leaves open whether it was made: what is written must be such
// that it can be asked for again.
func (s *pgSession) commit(ctx context.Context) error {
	s.queue.Queue("COMMIT")
	var said string
	err := s.send(func(results pgx.BatchResults) error {
		tag, err := results.Exec()
		said = tag.String()
		return err
	})
	if err == nil && said != "COMMIT" {
		err = fmt.Errorf("the database answered %q", said)
	}
	if err != nil {
		s.rollback(ctx)
		return err
	}
	s.cancel()
	return nil
}

// rollback leaves nothing of the transaction, nor of a connection that cannot
// say so.
func (s *pgSession) rollback(ctx context.Context) {
	defer s.cancel()
	if s.conn == nil || s.conn.IsClosed() {
		return
	}
	rctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.conn.Exec(rctx, "ROLLBACK"); err != nil {
		s.drop(ctx)
	}
}

// drop closes the connection; the next transaction makes another.
func (s *pgSession) drop(ctx context.Context) {
	if s.conn == nil {
		return
	}
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(cctx) // it is given up either way
	s.conn = nil
}

// clean makes texts fit for PostgreSQL, which takes neither NUL nor what is no
// UTF-8; no name or digest has either, a registry's error message may.
func clean(args []any) []any {
	for i, arg := range args {
		text, ok := arg.(string)
		if !ok || utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 {
			continue
		}
		args[i] = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	}
	return args
}

// isUnavailable tells whether an error says that the database could not be
// asked, rather than that it refused what was asked.
func isUnavailable(err error) bool { return errors.Is(err, ErrUnavailable) }
