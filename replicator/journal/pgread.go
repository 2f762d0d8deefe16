package journal

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/stdlib"
)

// A patient reads from the pool, or from a transaction of it, but no longer
// than is reasonable.
type patient struct {
	queryer
	db *postgres
}

// each asks once more where the database had cut the connection before it gave
// a row; in a transaction, that is for who began it.
func (p patient) each(ctx context.Context, query string, args []any, f func(scan scanner) error) error {
	args = clean(args)
	given := false
	ask := func(ctx context.Context) error {
		rows, err := p.QueryContext(ctx, query, args...)
		if err == nil {
			err = drain(rows, func(scan scanner) error {
				given = true
				if err := f(scan); err != nil {
					return &readError{err}
				}
				return nil
			})
		}
		var read *readError
		if errors.As(err, &read) {
			return read.error
		}
		return p.db.classify(err)
	}
	if _, within := p.queryer.(*sql.Tx); within {
		return ask(ctx)
	}
	return p.db.twice(ctx, func(ctx context.Context) error {
		err := ask(ctx)
		var cut *cutError
		if given && errors.As(err, &cut) {
			return cut.error
		}
		return err
	})
}

// A cutError is of a connection that broke while it was used: the database may
// well answer over another one.
type cutError struct{ error }

func (e *cutError) Unwrap() error { return e.error }

// twice asks within readTime, and once more where the connection it was asked
// over had been cut: then over one that has just answered, or is new. It gives
// ctx's cause where ctx ends.
func (p *postgres) twice(ctx context.Context, ask func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err := ask(within)
	var cut *cutError
	if errors.As(err, &cut) && within.Err() == nil {
		err = ask(context.WithValue(within, doubted{}, true))
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case within.Err() != nil:
		return p.classify(within.Err())
	}
	return err
}

// doubted is the key of contexts under which the pool's connections are asked
// before they are used: with one of them the others may have been cut. Else
// they are not, however long they were idle: the second try is cheaper.
type doubted struct{}

// toPing tells of a connection of the pool whether it is asked first.
func toPing(ctx context.Context, _ stdlib.ShouldPingParams) bool { return ctx.Value(doubted{}) != nil }
