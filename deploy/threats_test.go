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

// TestThreatsHaveTheirTests: each threat of the threat model names tests, and
// those exist.
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
	page, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	threats, in := 0, false
	for line := range strings.Lines(string(page)) {
		switch cells := strings.Split(line, "|"); {
		case strings.HasPrefix(line, "| threat |"):
			in = true
		case !strings.HasPrefix(line, "|"):
			in = false
		case in && !strings.HasPrefix(line, "|---"):
			threats++
			names := namedTest.FindAllStringSubmatch(cells[len(cells)-2], -1)
			if len(names) == 0 {
				t.Errorf("no test for: %s", cells[1])
			}
			for _, name := range names {
				if !made[name[1]] {
					t.Errorf("there is no %s, named for: %s", name[1], cells[1])
				}
			}
		}
	}
	if threats < 30 {
		t.Errorf("%d threats were found: the tables are read wrongly", threats)
	}
}
