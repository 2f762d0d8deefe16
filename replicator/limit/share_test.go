package limit

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

func TestShareDividesRequestsAndGivesThemBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Requests: 60, Connections: 200,
			Rates: map[oci.Operation]float64{oci.OpList: 30}}, slow(0, &c), nil)
		ask := func(op oci.Operation, n int) time.Duration {
			began := time.Now()
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					if _, err := do(t, r, t.Context(), op); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			return time.Since(began)
		}
		r.Share(3)
		near(t, "200 requests at 60/s among three", ask(oci.OpManifestHead, 200), 10*time.Second)
		near(t, "100 lists at 30/s among three", ask(oci.OpList, 100), 10*time.Second)
		r.Share(1)
		near(t, "600 requests at 60/s alone", ask(oci.OpManifestHead, 600), 10*time.Second)
		near(t, "300 lists at 30/s alone", ask(oci.OpList, 300), 10*time.Second)
	})
}

func TestShareDividesConnectionsAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crowd
		r := New(Spec{Registry: "eu", Connections: 12}, slow(time.Second, &c), nil)
		most := func() int {
			c.mu.Lock()
			c.most = 0
			c.mu.Unlock()
			var wg sync.WaitGroup
			for range 300 {
				wg.Go(func() {
					if _, err := do(t, r, t.Context(), oci.OpManifestHead); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.most
		}
		r.Share(3)
		if n := most(); n != 4 {
			t.Errorf("%d at once, a third of 12 is 4", n)
		}
		r.Share(1)
		if n := most(); n != 12 {
			t.Errorf("%d at once, alone there are 12", n)
		}
		r.Share(50)
		if n := most(); n != 1 {
			t.Errorf("%d at once among 50, one is the least", n)
		}
	})
}

func TestShareDividesBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBandwidth(Table{BytesPerSecond: 300_000})
		b.Share(3)
		s := &stream{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 1_000_000))), ctx: context.Background(),
			caps: []*Bandwidth{b}, count: func(int) {}}
		began := time.Now()
		if _, err := io.Copy(io.Discard, s); err != nil {
			t.Fatal(err)
		}
		near(t, "1 MB at 300 kB/s among three", time.Since(began), 10*time.Second)
	})
}
