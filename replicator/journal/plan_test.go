package journal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// Tables that may be looked at whole: they are small, or that happens only
// when a config is loaded.
var wholeTables = map[string]bool{
	"registries": true, "edges": true, "names": true, "pauses": true, "sweeps_due": true, "finding_totals": true,
	"refusals": true, "job_counts": true, "record_counts": true,
}

// No statement may look at all rows of a table that grows.
func TestStatementsUseIndexes(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	for name, query := range statements(t) {
		rows, err := j.writeQuery(query)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, detail := range rows {
			words := strings.Fields(detail)
			scans := len(words) > 1 && words[0] == "SCAN" && !wholeTables[words[1]]
			bounded := strings.Contains(query, "LIMIT") || strings.Contains(query, "COUNT(*) FROM findings")
			if scans && !bounded && !strings.Contains(detail, "COVERING INDEX") && words[1] != "CONSTANT" {
				t.Errorf("%s looks at a whole table: %s", name, detail)
			}
			if strings.Contains(detail, "locations") && strings.HasSuffix(detail, "(registry=?)") {
				t.Errorf("%s looks at all locations of a registry: %s", name, detail)
			}
			if strings.Contains(detail, "TEMP B-TREE") && !strings.Contains(query, "FROM locations") && name != "sqlGroup" {
				t.Errorf("%s sorts: %s", name, detail)
			}
		}
	}
}

// writeQuery explains a statement with NULLs for its parameters.
func (j *Journal) writeQuery(query string) ([]string, error) {
	var details []string
	n := strings.Count(query, "$")
	args := make([]any, n)
	var parent, id, unused any
	err := j.write(ctx0, true, func(b *batch) error {
		details = nil
		return b.each("EXPLAIN QUERY PLAN "+query, args, func(scan scanner) error {
			var detail string
			err := scan(&id, &parent, &unused, &detail)
			details = append(details, detail)
			return err
		})
	})
	return details, err
}

// statements are the constants of sql.go and sqldeparture.go.
func statements(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	var text func(ast.Expr) string
	text = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			return must(strconv.Unquote(e.Value))(t)
		case *ast.BinaryExpr:
			return text(e.X) + text(e.Y)
		case *ast.Ident:
			return texts[e.Name]
		}
		t.Fatalf("a statement made of %T", e)
		return ""
	}
	for _, name := range []string{"sql.go", "sqldeparture.go"} {
		file := must(parser.ParseFile(token.NewFileSet(), name, nil, 0))(t)
		for _, d := range file.Decls {
			for _, spec := range d.(*ast.GenDecl).Specs {
				v := spec.(*ast.ValueSpec)
				texts[v.Names[0].Name] = text(v.Values[0])
			}
		}
	}
	for name := range texts {
		if !strings.HasPrefix(name, "sql") {
			delete(texts, name)
		}
	}
	return texts
}
