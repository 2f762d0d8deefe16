package limit

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinport/twinport/replicator/oci"
)

// Metrics counts what registries are asked, for Prometheus. All label values
// come from small fixed sets: names of the config, classes of operation,
// statuses HTTP knows. A nil *Metrics counts nothing.
type Metrics struct {
	requests *prometheus.CounterVec
	read     *prometheus.CounterVec
	up       *prometheus.GaugeVec
	window   *prometheus.GaugeVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics registers the metrics; nil where there is no registerer.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	if reg == nil {
		return nil
	}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "twinport_registry_requests_total",
			Help: "HTTP requests sent to a registry, by class and status (error: no answer).",
		}, []string{"registry", "operation", "code"}),
		read: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "twinport_source_read_bytes_total",
			Help: "Bytes of blobs read from a registry.",
		}, []string{"registry"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "twinport_registry_up",
			Help: "1 while a registry answers, 0 while its breaker is open.",
		}, []string{"registry"}),
		window: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "twinport_registry_window",
			Help: "Requests of one class that may be under way at a registry at once.",
		}, []string{"registry", "operation"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "twinport_registry_request_seconds",
			Help:    "Time from sending a request to the head of its answer.",
			Buckets: []float64{.005, .02, .05, .1, .25, 1, 5, 30},
		}, []string{"registry", "operation"}),
	}
	reg.MustRegister(m.requests, m.read, m.up, m.window, m.seconds)
	return m
}

// Forget drops what is kept of a registry that is no longer in the config.
func (m *Metrics) Forget(registry string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"registry": registry}
	m.requests.DeletePartialMatch(labels)
	m.read.DeletePartialMatch(labels)
	m.up.DeletePartialMatch(labels)
	m.window.DeletePartialMatch(labels)
	m.seconds.DeletePartialMatch(labels)
}

func (m *Metrics) request(registry string, op oci.Operation, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(registry, string(op), codeOf(status)).Inc()
	m.seconds.WithLabelValues(registry, string(op)).Observe(took.Seconds())
}

func (m *Metrics) blobRead(registry string, n int) {
	if m != nil {
		m.read.WithLabelValues(registry).Add(float64(n))
	}
}

func (m *Metrics) setUp(registry string, up bool) {
	if m == nil {
		return
	}
	value := 0.0
	if up {
		value = 1
	}
	m.up.WithLabelValues(registry).Set(value)
}

func (m *Metrics) setWindow(registry string, op oci.Operation, size int) {
	if m != nil {
		m.window.WithLabelValues(registry, string(op)).Set(float64(size))
	}
}

// codeOf is a status as a label: "error" for no answer, the class for a status
// HTTP does not know.
func codeOf(status int) string {
	switch {
	case status == 0:
		return "error"
	case http.StatusText(status) != "":
		return strconv.Itoa(status)
	case status >= 100 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	}
	return "invalid"
}
