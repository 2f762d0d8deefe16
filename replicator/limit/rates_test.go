package limit

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// TestRates: a class with a quota of its own is held to it, uses it up, and
// holds up no other.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{
			Registry: "eu", Connections: 200,
			Rates: map[oci.Operation]float64{oci.OpManifestWrite: 10, oci.OpUploadStart: 100},
		}, slow(0, &c), nil)
		began := time.Now()
		var wg sync.WaitGroup
		took := make(map[oci.Operation]time.Duration)
		var mu sync.Mutex
		for op, n := range map[oci.Operation]int{oci.OpManifestWrite: 100, oci.OpUploadStart: 500, oci.OpBlobHead: 500} {
			for range n {
				wg.Go(func() {
					if _, err := do(t, r, t.Context(), op); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					took[op] = max(took[op], time.Since(began))
				})
			}
		}
		wg.Wait()
		near(t, "100 manifests at 10/s", took[oci.OpManifestWrite], 10*time.Second)
		near(t, "500 uploads at 100/s", took[oci.OpUploadStart], 5*time.Second)
		if took[oci.OpBlobHead] > 100*time.Millisecond {
			t.Errorf("500 HEADs without a quota took %s", took[oci.OpBlobHead])
		}
	})
}
