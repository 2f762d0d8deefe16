package limit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// near allows for what a cap gives at once after a pause.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want-want/10-100*time.Millisecond || got > want+want/10+100*time.Millisecond {
		t.Errorf("%s took %s, want about %s", what, got, want)
	}
}

func serve(n int) transport {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			defer req.Body.Close()
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		return answer(http.StatusOK, string(make([]byte, n))), nil
	}
}

func TestBandwidthIsSharedByAllStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Bandwidth: Table{BytesPerSecond: 1 << 20}}, serve(1<<20), nil)
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		near(t, "10 MiB at 1 MiB/s", time.Since(began), 10*time.Second)
		if s := r.Stats(); s.BlobBytesRead != 10<<20 || s.BytesRead != 10<<20 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestBandwidthFollowsTheTimeOfDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now() // midnight UTC
		r := New(Spec{Registry: "eu", Bandwidth: Table{Windows: []Window{
			{From: 0, To: 10 * time.Second, BytesPerSecond: 100 << 10},
			{From: 10 * time.Second, To: time.Hour, BytesPerSecond: 1 << 20},
		}}}, serve(3<<20), nil)
		if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
			t.Fatal(err)
		}
		// 1000 KiB in the first 10 s, the other 2072 KiB at 1 MiB/s.
		near(t, "3 MiB", time.Since(began), 12*time.Second)

		time.Sleep(time.Hour)
		began = time.Now()
		if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("outside all windows it took %s", took)
		}
	})
}

func TestRouteCapCountsUploadsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route := NewBandwidth(Table{BytesPerSecond: 1 << 20})
		ctx := WithBandwidth(t.Context(), route)
		eu, us := New(Spec{Registry: "eu"}, serve(4<<20), nil), New(Spec{Registry: "us"}, serve(0), nil)
		began := time.Now()
		if _, err := do(t, eu, ctx, oci.OpBlobRead); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("reading took %s", took)
		}
		resp, err := us.RoundTrip(request(t, ctx, oci.OpBlobWrite, bytes.NewReader(make([]byte, 4<<20))))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		near(t, "uploading 4 MiB at 1 MiB/s", time.Since(began), 4*time.Second)
		if s := us.Stats(); s.BytesWritten != 4<<20 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestTwoCapsTheSlowerHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := WithBandwidth(t.Context(), NewBandwidth(Table{BytesPerSecond: 1 << 20}))
		ctx = WithBandwidth(ctx, NewBandwidth(Table{BytesPerSecond: 512 << 10}))
		r := New(Spec{Registry: "us", Bandwidth: Table{BytesPerSecond: 2 << 20}}, serve(0), nil)
		began := time.Now()
		req := request(t, ctx, oci.OpBlobWrite, bytes.NewReader(make([]byte, 2<<20)))
		again := req.GetBody
		if _, err := r.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		near(t, "2 MiB", time.Since(began), 4*time.Second)
		if again == nil || req.GetBody == nil {
			t.Error("the caller's request was changed")
		}
	})
}

func TestCancelEndsTheWaitForBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu", Bandwidth: Table{BytesPerSecond: 1}}, serve(1<<20), nil)
		why := errors.New("the job was held")
		ctx, cancel := context.WithCancelCause(t.Context())
		resp, err := r.RoundTrip(request(t, ctx, oci.OpBlobRead, nil))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, why) {
			t.Errorf("read: %v, want the cause", err)
		}
		if r.requests.inFlight != 0 {
			t.Error("a body that failed keeps its slot")
		}
		resp.Body.Close()
	})
}
