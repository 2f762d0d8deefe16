package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// The binaries under the repository's .cache/bin.
const (
	// Twinport is the product as it ships: static.
	Twinport = "twinport"
	// TwinportRace is the product with the race detector; it needs a C compiler.
	TwinportRace = "twinport-race"
	// Registry is CNCF distribution's registry, pinned in this module's go.mod.
	Registry = "registry"
)

type built struct {
	once sync.Once
	err  error
}

var binaries = map[string]*built{Twinport: {}, TwinportRace: {}, Registry: {}}

// ErrNoCompiler tells that the race detector needs cgo, and there is no C compiler.
var ErrNoCompiler = errors.New("no C compiler found")

// Binary returns the path of a binary, built first where it is missing. The
// product is always built again, which costs nothing where nothing changed.
func Binary(name string) (string, error) {
	b := binaries[name]
	path := filepath.Join(Root(), ".cache", "bin", name)
	b.once.Do(func() { b.err = build(name, path) })
	return path, b.err
}

func build(name, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// One build at a time on the machine: test binaries of several packages
	// and the demo may ask together.
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the build of %s: %w", name, err)
	}
	next := path + ".new"
	var cmd *exec.Cmd
	switch name {
	case Registry:
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		cmd = exec.Command("go", "build", "-o", next, "github.com/distribution/distribution/v3/cmd/registry")
		cmd.Dir = filepath.Join(Root(), "integration")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	case Twinport:
		cmd = exec.Command("go", "build", "-o", next, "./cmd/twinport")
		cmd.Dir = Root()
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	case TwinportRace:
		if !hasCompiler() {
			return ErrNoCompiler
		}
		cmd = exec.Command("go", "build", "-race", "-o", next, "./cmd/twinport")
		cmd.Dir = Root()
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return os.Rename(next, path) // a running binary cannot be written to
}

func hasCompiler() bool {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "gcc"
	}
	if _, err := exec.LookPath(cc); err == nil {
		return true
	}
	_, err := exec.LookPath("clang")
	return err == nil && os.Getenv("CC") != ""
}

func mustBinary(t T, name string) string {
	t.Helper()
	path, err := Binary(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return path
}
