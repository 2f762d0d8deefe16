package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// A session is the committer's connection to its engine: one transaction at a
// time, which no other process's writes go between.
type session interface {
	// begin gives an error of kind ErrUnavailable where the database does not answer.
	begin(ctx context.Context) error
	// exec may put the statement off until the next one that is asked for an
	// answer, or the commit; its error comes with that.
	exec(ctx context.Context, query string, args []any) error
	execCount(ctx context.Context, query string, args []any) (int64, error)
	each(ctx context.Context, query string, args []any, f func(scan scanner) error) error
	// row scans the one row of a query; sql.ErrNoRows where there is none.
	row(ctx context.Context, query string, args []any, f func(scan scanner) error) error
	commit(ctx context.Context) error
	rollback(ctx context.Context)
}

// sqliteSession writes through the journal's one connection, with statements
// prepared once.
type sqliteSession struct{ j *Journal }

func (s sqliteSession) begin(ctx context.Context) error {
	_, err := s.j.writer.ExecContext(ctx, "BEGIN IMMEDIATE")
	return classify(err)
}

func (s sqliteSession) commit(ctx context.Context) error {
	_, err := s.j.writer.ExecContext(ctx, "COMMIT")
	return classify(err)
}

func (s sqliteSession) rollback(ctx context.Context) {
	// Where the engine rolled back by itself this says so; either way nothing is left.
	_, _ = s.j.writer.ExecContext(ctx, "ROLLBACK")
}

func (s sqliteSession) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := s.j.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := s.j.writer.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	s.j.stmts[query] = stmt
	return stmt, nil
}

func (s sqliteSession) exec(ctx context.Context, query string, args []any) error {
	_, err := s.execCount(ctx, query, args)
	return err
}

func (s sqliteSession) execCount(ctx context.Context, query string, args []any) (int64, error) {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // Close closes it
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, classify(err)
	}
	return result.RowsAffected()
}

func (s sqliteSession) row(ctx context.Context, query string, args []any, f func(scan scanner) error) error {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // Close closes it
	if err != nil {
		return err
	}
	err = f(stmt.QueryRowContext(ctx, args...).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return classify(err)
}

func (s sqliteSession) each(ctx context.Context, query string, args []any, f func(scan scanner) error) error {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // Close closes it
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return classify(err)
	}
	return classify(drain(rows, f))
}
