package deploy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator"
)

// TestFindingsAreExplained: the guide tells what to do about each kind.
func TestFindingsAreExplained(t *testing.T) {
	guide, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range replicator.FindingKinds {
		if !strings.Contains(string(guide), "\n| finding `"+string(kind)+"`") {
			t.Errorf("docs/operations.md has no row for finding %s", kind)
		}
	}
}
