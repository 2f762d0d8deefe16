// Command test runs "go test" with its arguments and shows what a person
// wants to see of it: the line that closes each package, everything a failing
// test wrote, and at the end every test that was left out, with its reason.
//
// It exits with go test's own code; with CI=true a test that was left out is a
// failure too, because nobody reads that list there.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// An event is one line of go test -json (go doc test2json); build output has
// ImportPath instead of Package.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

func main() {
	code, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		code = 1
	}
	os.Exit(code)
}

func run(args []string, out io.Writer) (int, error) {
	i := slices.Index(args, "test")
	if i < 0 {
		return 0, errors.New(`usage: test [-C dir] test [flags] packages`)
	}
	args = slices.Insert(slices.Clone(args), i+1, "-json")
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	left, err := show(stdout, out)
	if err != nil {
		return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	err = cmd.Wait()
	if len(left) > 0 {
		fmt.Fprintf(out, "left out: %d\n%s", len(left), strings.Join(left, ""))
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err == nil && len(left) > 0 && os.Getenv("CI") == "true" {
		return 1, errors.New("CI=true and tests were left out")
	}
	return 0, err
}

// show copies what is worth reading and returns a line for each test left out.
func show(in io.Reader, out io.Writer) (left []string, err error) {
	said := map[[2]string][]string{} // package and test: what it has written
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line) // not from a test binary
			} else {
				left = append(left, one(e, said, out)...)
			}
		}
		if errors.Is(err, io.EOF) {
			return left, nil
		}
		if err != nil {
			return left, err
		}
	}
}

func one(e event, said map[[2]string][]string, out io.Writer) (left []string) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "output":
		switch {
		case strings.HasPrefix(e.Output, "=== "):
			// What starts, pauses and goes on: the order says nothing here.
		case e.Test != "":
			said[key] = append(said[key], e.Output)
		case closing(e.Output):
			fmt.Fprint(out, e.Output)
		default:
			said[key] = append(said[key], e.Output)
		}
	case "fail":
		// A package that ended in the middle of a test never closes that test:
		// what it wrote comes with the package's failure.
		for _, k := range slices.SortedFunc(maps.Keys(said), byTest) {
			if k == key || e.Test == "" && k[0] == e.Package {
				fmt.Fprint(out, strings.Join(said[k], ""))
				delete(said, k)
			}
		}
	case "skip":
		if e.Test != "" {
			left = append(left, fmt.Sprintf("  %s %s: %s\n", e.Package, e.Test, reason(said[key])))
		}
		delete(said, key)
	case "pass":
		delete(said, key)
	}
	return left
}

func byTest(a, b [2]string) int { return strings.Compare(a[1], b[1]) }

// closing tells whether a package's line is one of those go test ends with.
func closing(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// reason is what the test said when it skipped, in one line.
func reason(said []string) string {
	var words []string
	for _, line := range said {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- SKIP") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
