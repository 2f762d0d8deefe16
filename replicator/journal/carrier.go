package journal

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

const (
	// carryBatch rows go into one transaction.
	carryBatch = 2000
	// carrySteps bounds how often a table of numbered rows is taken up again
	// behind a place that cannot be read.
	carrySteps = 200
)

// A carrier copies one table's sound rows from a database that may be damaged.
type carrier struct {
	*Rebuilt
	table *table
	to    *sql.DB

	insert string
	batch  [][]any
	last   int64 // the number of the last row read, of tables that have them
	write  error // ours, not the damage's
}

// all reads the table from its beginning to its end; where it breaks, from its
// end back to where it breaks again, and, where rows have numbers, from behind
// the damage on. What comes twice is kept once.
func (c *carrier) all(ctx context.Context, from *sql.DB) error {
	if err := c.table.define(ctx, from); err != nil {
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		c.Unread = append(c.Unread, c.table.name)
		return nil
	}
	names := c.table.defined()
	marks := make([]string, len(names))
	for i := range names {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	c.insert = "INSERT OR IGNORE INTO " + c.table.name + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(marks, ", ") + ")"
	broke, err := c.read(ctx, from, c.table.query(false, ""), nil)
	if err != nil || !broke {
		return err
	}
	c.Unread = append(c.Unread, c.table.name)
	behind := c.last
	if _, err := c.read(ctx, from, c.table.query(true, ""), nil); err != nil {
		return err
	}
	if !c.table.rowid {
		return nil
	}
	until := c.last // the lowest that was read backwards
	if until == behind {
		return nil
	}
	// Between the two: steps that grow while nothing can be read.
	where := " WHERE " + c.table.key[0] + " > $1 AND " + c.table.key[0] + " < $2"
	step := int64(1)
	for range carrySteps {
		behind += step
		if behind >= until || behind < 0 {
			return nil
		}
		c.last = behind
		broke, err := c.read(ctx, from, c.table.query(false, where), []any{behind, until})
		if err != nil || !broke {
			return err
		}
		if c.last > behind {
			behind, step = c.last, 1
		} else {
			step *= 2
		}
	}
	return nil
}

// read carries over what one query gives; broke tells that it ended early.
func (c *carrier) read(ctx context.Context, from *sql.DB, query string, args []any) (broke bool, err error) {
	err = c.table.scanRows(ctx, from, query, args, func(values []any) error {
		if c.table.rowid {
			if n, ok := values[0].(int64); ok {
				c.last = n
			}
		}
		if c.table.fault(values) != "" {
			c.Lost[c.table.name]++
			return nil
		}
		if c.batch = append(c.batch, values); len(c.batch) == carryBatch {
			c.write = c.flush(ctx)
		}
		return c.write
	})
	if c.write == nil {
		c.write = c.flush(ctx)
	}
	switch {
	case c.write != nil:
		return false, c.write
	case context.Cause(ctx) != nil:
		return false, context.Cause(ctx)
	}
	return err != nil, nil
}

// flush writes what was read in one transaction.
func (c *carrier) flush(ctx context.Context) error {
	if len(c.batch) == 0 {
		return nil
	}
	rows := c.batch
	c.batch = c.batch[:0:0]
	tx, err := c.to.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	stmt, err := tx.PrepareContext(ctx, c.insert)
	if err != nil {
		return classify(err)
	}
	defer stmt.Close()
	for _, values := range rows {
		result, err := stmt.ExecContext(ctx, values...)
		if err != nil {
			return fmt.Errorf("write a row of %s: %w", c.table.name, classify(err))
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		c.Kept[c.table.name] += n
	}
	return classify(tx.Commit())
}
