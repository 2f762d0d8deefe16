package sweep

import (
	"fmt"
	"sync"
	"testing"

	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// Both ends are told of the listings before the first request, the source of
// the HEADs that its repositories are going to need, and never of more than are
// sent at once.
func TestWarm(t *testing.T) {
	w := newWorld(t, ocitest.Options{})
	w.only("us")
	for i := range 20 {
		w.twins(fmt.Sprintf("app%02d", i), "v1", 1)
	}
	var mu sync.Mutex
	most, before := make(map[string]int), -1
	w.request.Warm = func(registry string, n int) {
		mu.Lock()
		defer mu.Unlock()
		if before < 0 {
			before = w.eu.Count()
		}
		most[registry] = max(most[registry], n)
	}
	if result := w.sweep(); !result.Complete {
		t.Fatalf("got %+v", result)
	}
	if before != 0 {
		t.Errorf("told after %d requests", before)
	}
	if got := most[w.request.SourceName]; got <= sideBySide || got > sideBySide+heads {
		t.Errorf("the source was told of %d requests", got)
	}
	if got := most["us"]; got != sideBySide {
		t.Errorf("the destination was told of %d requests", got)
	}
}
