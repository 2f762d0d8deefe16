package limit

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/twinport/twinport/replicator/oci"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	r := New(Spec{Registry: "eu", Connections: 4}, serve(100), m)
	for range 2 {
		if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := do(t, New(Spec{Registry: "us"}, &script{err: errDial}, m), t.Context(), "made up"); err == nil {
		t.Fatal("answered")
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP twinport_registry_requests_total HTTP requests sent to a registry, by class and status (error: no answer).
# TYPE twinport_registry_requests_total counter
twinport_registry_requests_total{code="200",operation="blob-read",registry="eu"} 2
twinport_registry_requests_total{code="error",operation="other",registry="us"} 1
# HELP twinport_registry_window Requests of one class that may be under way at a registry at once.
# TYPE twinport_registry_window gauge
twinport_registry_window{operation="blob-read",registry="eu"} 3
twinport_registry_window{operation="other",registry="us"} 4
# HELP twinport_source_read_bytes_total Bytes of blobs read from a registry.
# TYPE twinport_source_read_bytes_total counter
twinport_source_read_bytes_total{registry="eu"} 200
# HELP twinport_registry_up 1 while a registry answers, 0 while its breaker is open.
# TYPE twinport_registry_up gauge
twinport_registry_up{registry="eu"} 1
twinport_registry_up{registry="us"} 1
`), "twinport_registry_requests_total", "twinport_registry_window", "twinport_source_read_bytes_total", "twinport_registry_up"); err != nil {
		t.Error(err)
	}
	m.Forget("us")
	if n := testutil.CollectAndCount(m.up); n != 1 {
		t.Errorf("%d registries after one was forgotten", n)
	}
}

func TestCodeOf(t *testing.T) {
	for status, want := range map[int]string{0: "error", 200: "200", 418: "418", 499: "4xx", 522: "5xx", 999: "invalid"} {
		if got := codeOf(status); got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
}
