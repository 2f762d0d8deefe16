package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// A salvage is what becomes of a table's rows when a journal is rebuilt.
type salvage int

const (
	// drop: what the registries tell again, or what is unsafe to believe.
	drop salvage = iota
	// keep: the rows that are sound.
	keep
)

// salvages names every table of the schema, in the order in which they are
// read. Sweeps start anew, so nothing is taken as seen; removals begin their
// grace anew; leases are nobody's; what is carried over is counted anew.
var salvages = []struct {
	table string
	what  salvage
}{
	{"registries", keep}, {"names", keep}, {"edges", keep},
	{"jobs", keep}, {"records", keep}, {"bases", keep}, {"tag_states", keep}, {"refusals", keep},
	{"findings", keep}, {"finding_totals", keep}, {"audits", keep}, {"pauses", keep}, {"locations", keep},
	{"sweeps", drop}, {"sweeps_due", drop}, {"departures", drop}, {"replicas", drop},
	{"job_counts", drop}, {"record_counts", drop},
}

// A column is one of a table's, as this program's schema has it.
type column struct {
	name    string
	number  bool // else text
	defined bool // the database being read has it
}

// A table is one of the schema, and what is known of what its rows may hold.
type table struct {
	name    string
	columns []column
	// key orders the rows; rowid tells that the first column is its number.
	key   []string
	rowid bool
	// registries and edges are the numbers there are, nil before they are read.
	registries, edges map[int64]bool
}

// tableOf reads how a table is made.
func tableOf(ctx context.Context, db queryer, name string) (*table, error) {
	t := &table{name: name}
	keys := map[int]string{}
	err := each(ctx, db, `SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid`, []any{name}, func(scan scanner) error {
		var c column
		var kind string
		var pk int
		if err := scan(&c.name, &kind, &pk); err != nil {
			return err
		}
		c.number = kind != "TEXT"
		if pk > 0 {
			keys[pk] = c.name
			t.rowid = t.rowid || kind == "INTEGER"
		}
		t.columns = append(t.columns, c)
		return nil
	})
	for n := 1; keys[n] != ""; n++ {
		t.key = append(t.key, keys[n])
	}
	if err == nil && (len(t.columns) == 0 || len(t.key) == 0) {
		err = fmt.Errorf("no table %s", name)
	}
	return t, err
}

// latest bounds a time: the end of the year 9999 in microseconds.
const latest = int64(253402300799) * 1_000_000

// fault says what is wrong with a row, empty where it is sound. Values are in
// the order of the columns that are defined.
func (t *table) fault(values []any) string {
	n := -1
	for _, c := range t.columns {
		if !c.defined {
			continue
		}
		n++
		if why := t.valueFault(c, values[n]); why != "" {
			return c.name + " " + why
		}
	}
	return ""
}

func (t *table) valueFault(c column, value any) string {
	if c.number {
		v, ok := value.(int64)
		switch {
		case !ok:
			return "is no number"
		case isTime(c.name) && (v < 0 || v > latest):
			return "is no time"
		case c.name == "state" && (v < 0 || v > int64(superseded)), c.name == "lane" && (v < 0 || v > 3):
			return "is out of its range"
		case t.registries != nil && (c.name == "src" || c.name == "dst" || c.name == "registry") && !t.registries[v]:
			return "names no registry"
		case t.edges != nil && c.name == "edge" && !t.edges[v]:
			return "names no edge"
		}
		return ""
	}
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case []byte: // how the driver gives what the file calls a blob
		return "is no text"
	default:
		return "is no text"
	}
	switch {
	case !utf8.ValidString(text) || len(text) > 1<<20:
		return "is no text"
	case strings.HasSuffix(c.name, "digest") && text != "" && oci.CheckDigest(digest.Digest(text)) != nil:
		return "is no digest"
	case (c.name == "wants" || c.name == "intents") && text != "" && !json.Valid([]byte(text)):
		return "is no JSON"
	}
	return ""
}

func isTime(name string) bool {
	return name == "at" || strings.HasSuffix(name, "_at") || name == "behind_since" || name == "next_attempt" || name == "until"
}

// define notes which columns the database being read has.
func (t *table) define(ctx context.Context, db queryer) error {
	found := false
	err := each(ctx, db, `SELECT name FROM pragma_table_info($1)`, []any{t.name}, func(scan scanner) error {
		var name string
		if err := scan(&name); err != nil {
			return err
		}
		for i := range t.columns {
			if t.columns[i].name == name {
				t.columns[i].defined, found = true, true
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("the table %s is not there", t.name)
	}
	return err
}

// defined are the names of the columns the database being read has.
func (t *table) defined() []string {
	var names []string
	for _, c := range t.columns {
		if c.defined {
			names = append(names, c.name)
		}
	}
	return names
}

// query reads all rows in the order of the key, or against it. NOT INDEXED: an
// index may be damaged where the table is not.
func (t *table) query(down bool, where string) string {
	order := strings.Join(t.key, ", ")
	if down {
		order = strings.Join(t.key, " DESC, ") + " DESC"
	}
	not := ""
	if t.rowid {
		not = " NOT INDEXED"
	}
	return "SELECT " + strings.Join(t.defined(), ", ") + " FROM " + t.name + not + where + " ORDER BY " + order
}

// scanRows reads rows until the database cannot give more.
func (t *table) scanRows(ctx context.Context, db *sql.DB, query string, args []any, row func(values []any) error) error {
	n := len(t.defined())
	return each(ctx, db, query, args, func(scan scanner) error {
		values, into := make([]any, n), make([]any, n)
		for i := range values {
			into[i] = &values[i]
		}
		if err := scan(into...); err != nil {
			return err
		}
		return row(values)
	})
}
