package deploy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)`")
	madeTest  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)\(`)
)

// TestThreatsHaveTheirTests: each threat of the threat model, and each fault of
// the page about them, names tests, and those exist.
func TestThreatsHaveTheirTests(t *testing.T) {
	made := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range madeTest.FindAllStringSubmatch(string(source), -1) {
			made[found[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []struct {
		path, column string
		atLeast      int
	}{{"docs/threat-model.md", "threat", 30}, {"docs/faults.md", "fault", 20}} {
		text, err := os.ReadFile(page.path)
		if err != nil {
			t.Fatal(err)
		}
		lines, in := 0, false
		for line := range strings.Lines(string(text)) {
			switch cells := strings.Split(line, "|"); {
			case strings.HasPrefix(line, "| "+page.column+" |"):
				in = true
			case !strings.HasPrefix(line, "|"):
				in = false
			case in && !strings.HasPrefix(line, "|---"):
				lines++
				names := namedTest.FindAllStringSubmatch(cells[len(cells)-2], -1)
				if len(names) == 0 {
					t.Errorf("%s: no test for: %s", page.path, cells[1])
				}
				for _, name := range names {
					if !made[name[1]] {
						t.Errorf("%s: there is no %s, named for: %s", page.path, name[1], cells[1])
					}
				}
			}
		}
		if lines < page.atLeast {
			t.Errorf("%s: %d lines were found: the tables are read wrongly", page.path, lines)
		}
	}
}
