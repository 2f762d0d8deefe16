package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected and generated files anew")

// pretend is a machine with a few variables and files.
func pretend() Environment {
	files := map[string]string{"secret": "s3cret\n", "empty": "\n", "text.txt": "no PEM", "cert.pem": "", "lc.json": "{}", "/run/secrets/eu": "robot's"}
	if pem, err := os.ReadFile("testdata/ca.pem"); err == nil {
		files["cert.pem"], files["/etc/ssl/eu.pem"] = string(pem), string(pem)
	}
	return Environment{
		Env: func(name string) (string, bool) {
			v, ok := map[string]string{"SET": "value", "EMPTY": ""}[name]
			return v, ok
		},
		ReadFile: func(path string) ([]byte, error) {
			for name, content := range files {
				if path == name || strings.HasSuffix(path, "/etc/twinport/"+name) {
					return []byte(content), nil
				}
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		},
	}
}

// short writes out what the cases abbreviate.
var short = strings.NewReplacer("@registries\n", three, "@routes\n", "routes:\n  - {name: a, from: eu, to: [us]}\n")

// TestFaults holds testdata/faults.txt: configs, and all that is said of each.
func TestFaults(t *testing.T) {
	data, err := os.ReadFile("testdata/faults.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	count := 0
	for _, section := range strings.Split(string(data), "=== ")[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		input, want, ok := strings.Cut(rest, ">>>\n")
		if !ok {
			t.Fatalf("%s: no expectation", name)
		}
		var got strings.Builder
		_, warnings, err := Parse("/etc/twinport/t.yaml", []byte(short.Replace(input)), pretend())
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, f := range faults {
			fmt.Fprintln(&got, strings.TrimPrefix(f.Show(), "/etc/twinport/t.yaml:"))
		}
		for _, f := range warnings {
			fmt.Fprintln(&got, "warning "+strings.TrimPrefix(f.Show(), "/etc/twinport/t.yaml:"))
		}
		fmt.Fprintf(&out, "=== %s\n%s>>>\n%s", name, input, got.String())
		count++
		if *update {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if got.Len() == 0 {
				t.Error("no fault")
			}
			if diff := cmp.Diff(want, got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(got.String(), "hunter2") {
				t.Error("a secret is shown")
			}
			for _, f := range faults {
				if f.Hint == "" {
					t.Errorf("%v: no hint", f)
				}
			}
		})
	}
	if count < 45 {
		t.Errorf("%d kinds of fault, want 45", count)
	}
	if *update {
		if err := os.WriteFile("testdata/faults.txt", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
