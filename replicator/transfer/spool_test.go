package transfer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A spool's directory that cannot be made, the disk being full or read-only, is
// asked for again when the next file is wanted.
func TestASpoolThatCouldNotBeMadeIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &spool{dir: dir, max: 1 << 20}
	d := digest.FromString("a blob")
	if _, err := s.open(d, 0); err == nil {
		t.Fatal("a file was made where there is no directory")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	f, err := s.open(d, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.close()
}
