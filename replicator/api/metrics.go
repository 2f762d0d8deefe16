package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/twinport/twinport/replicator"
)

// scrapeTimeout bounds what one scrape may ask of the journal.
const scrapeTimeout = 5 * time.Second

// A Gauge is what a scrape asks for.
type Gauge interface {
	Status(ctx context.Context) (Status, error)
	// JobCounts counts live jobs by state and lane.
	JobCounts(ctx context.Context) (map[JobGroup]int64, error)
	// FindingTotals counts findings told, by kind, since the journal began.
	FindingTotals(ctx context.Context) (map[replicator.FindingKind]int64, error)
	// Deleted counts the tags removed from each route's destinations since the start.
	Deleted() map[RouteDestination]int64
	// CopiedBytes are the bytes written to each route's destinations since the start.
	CopiedBytes() map[RouteDestination]int64
	// Polled tells of the registries that are polled, by name.
	Polled() map[string]Polled
	SpoolBytes() int64
	JournalBytes() int64
}

// JobGroup is what jobs are counted by.
type JobGroup struct {
	State replicator.JobState
	Lane  replicator.Lane
}

// RouteDestination is one destination of one route.
type RouteDestination struct{ Route, Destination string }

// Polled is what the polls of one registry have come to.
type Polled struct {
	// Seen is since when it has been looked at to its end, zero: not yet.
	Seen time.Time
	// Requests were sent by polls since the start.
	Requests int64
}

// Metrics are the daemon's own; those of requests are limit's, in the same registry.
type Metrics struct {
	registry    *prometheus.Registry
	webhooks    *prometheus.CounterVec
	replication *prometheus.HistogramVec
}

// NewMetrics makes the registry that GET /metrics serves.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "twinport_webhooks_total", Help: "Webhooks answered, by registry and HTTP status.",
		}, []string{"registry", "code"}),
		replication: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "twinport_replication_seconds", Help: "Time from a push to its proof at a destination.",
			Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400},
		}, []string{"route", "destination"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "twinport_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.webhooks, m.replication, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry is where limit's metrics are registered too.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Webhook counts one answer. registry is a name of the config, or empty.
func (m *Metrics) Webhook(registry string, code int) {
	m.webhooks.WithLabelValues(registry, strconv.Itoa(code)).Inc()
}

// Replicated observes how long a push took to its proof.
func (m *Metrics) Replicated(route, destination string, took time.Duration) {
	m.replication.WithLabelValues(route, destination).Observe(max(took, 0).Seconds())
}

// Collect has each scrape ask g.
func (m *Metrics) Collect(g Gauge) { m.registry.MustRegister(&collector{gauge: g}) }

// Handler serves GET /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

type collector struct{ gauge Gauge }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("twinport_"+name, help, labels, nil)
}

var (
	lagDesc         = desc("lag_seconds", "Now minus the earliest push that no proof covers; 0 when there is none.", "route", "destination")
	stateDesc       = desc("rpo_state", "1 for the state the route's RPO is in there, 0 for the others.", "route", "destination", "state")
	rpoDesc         = desc("rpo_seconds", "The lag the route promises.", "route")
	routeDesc       = desc("route_info", "1, with the source registry, owner and contact as labels.", "route", "source", "owner", "contact")
	jobsDesc        = desc("jobs", "Jobs by state and lane.", "state", "lane")
	provenDesc      = desc("proven", "Tags and digests proven at a destination.", "route", "destination")
	unconfirmedDesc = desc("unconfirmed", "Tags proven at a destination that were moved while their source did not answer.", "route", "destination")
	copiedDesc      = desc("copied_bytes_total", "Bytes written to a destination.", "route", "destination")
	deletedDesc     = desc("deleted_total", "Tags removed from a destination, since they are gone at the source.", "route", "destination")
	departedDesc    = desc("deletions", "Tags that are gone at the source and still at a destination: waiting for their grace, or held.", "route", "destination", "state")
	seenDesc        = desc("source_seen_age_seconds", "Time since the source was last compared in full; absent before the first time.", "route")
	pollAgeDesc     = desc("poll_age_seconds", "Time since a registry whose pushes nothing tells was last looked at to its end, by a poll or by sweeps; absent before the first time.", "registry")
	pollSentDesc    = desc("poll_requests_total", "Requests that polls sent to a registry.", "registry")
	proofDesc       = desc("proof_age_seconds", "Age of the oldest proof at a destination.", "route", "destination")
	findingsDesc    = desc("findings_total", "Findings told, by kind.", "kind")
	spoolDesc       = desc("spool_bytes", "Bytes in the spool.")
	journalDesc     = desc("journal_bytes", "Size of the journal's files.")
	collectErrDesc  = desc("collect_errors", "1 when the journal could not be read for this scrape.")
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagDesc, stateDesc, rpoDesc, routeDesc, jobsDesc, provenDesc, unconfirmedDesc, copiedDesc, deletedDesc, departedDesc, seenDesc, pollAgeDesc, pollSentDesc, proofDesc, findingsDesc, spoolDesc, journalDesc, collectErrDesc} {
		ch <- d
	}
}

// RPOStates are the labels of twinport_rpo_state.
var RPOStates = []string{"met", "missed", "unknown", "seeding", "none"}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	failed := 0.0
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if status, err := c.gauge.Status(ctx); err != nil {
		failed = 1
	} else {
		c.routes(status, gauge)
	}
	if jobs, err := c.gauge.JobCounts(ctx); err != nil {
		failed = 1
	} else {
		for _, state := range []replicator.JobState{replicator.Waiting, replicator.Running, replicator.Failed, replicator.Refused, replicator.Held} {
			for _, lane := range replicator.Lanes {
				gauge(jobsDesc, float64(jobs[JobGroup{state, lane}]), string(state), lane.String())
			}
		}
	}
	if totals, err := c.gauge.FindingTotals(ctx); err != nil {
		failed = 1
	} else {
		for kind, n := range totals {
			ch <- prometheus.MustNewConstMetric(findingsDesc, prometheus.CounterValue, float64(n), string(kind))
		}
	}
	for k, n := range c.gauge.CopiedBytes() {
		ch <- prometheus.MustNewConstMetric(copiedDesc, prometheus.CounterValue, float64(n), k.Route, k.Destination)
	}
	for k, n := range c.gauge.Deleted() {
		ch <- prometheus.MustNewConstMetric(deletedDesc, prometheus.CounterValue, float64(n), k.Route, k.Destination)
	}
	for registry, p := range c.gauge.Polled() {
		ch <- prometheus.MustNewConstMetric(pollSentDesc, prometheus.CounterValue, float64(p.Requests), registry)
		if !p.Seen.IsZero() {
			gauge(pollAgeDesc, max(time.Since(p.Seen).Seconds(), 0), registry)
		}
	}
	gauge(spoolDesc, float64(c.gauge.SpoolBytes()))
	gauge(journalDesc, float64(c.gauge.JournalBytes()))
	gauge(collectErrDesc, failed)
}

func (c *collector) routes(status Status, gauge func(*prometheus.Desc, float64, ...string)) {
	now := time.Now()
	seen := make(map[string]bool)
	compared := make(map[string]time.Time) // the latest of a route's destinations
	for _, r := range status.Routes {
		if r.LastSweep != nil && r.LastSweep.After(compared[r.Route]) {
			compared[r.Route] = *r.LastSweep
		}
	}
	for _, r := range status.Routes {
		gauge(lagDesc, r.Lag, r.Route, r.Destination)
		for _, state := range RPOStates {
			v := 0.0
			if state == r.State {
				v = 1
			}
			gauge(stateDesc, v, r.Route, r.Destination, state)
		}
		gauge(provenDesc, float64(r.Proven), r.Route, r.Destination)
		if r.Deletions != nil {
			gauge(departedDesc, float64(r.Deletions.Waiting), r.Route, r.Destination, "waiting")
			gauge(departedDesc, float64(r.Deletions.Held), r.Route, r.Destination, "held")
		}
		gauge(unconfirmedDesc, float64(r.Unconfirmed), r.Route, r.Destination)
		if r.OldestProof != nil {
			gauge(proofDesc, max(now.Sub(*r.OldestProof).Seconds(), 0), r.Route, r.Destination)
		}
		if seen[r.Route] {
			continue
		}
		seen[r.Route] = true
		gauge(routeDesc, 1, r.Route, r.Source, r.Owner, r.Contact)
		if r.RPO != nil {
			gauge(rpoDesc, *r.RPO, r.Route)
		}
		if at := compared[r.Route]; !at.IsZero() {
			gauge(seenDesc, max(now.Sub(at).Seconds(), 0), r.Route)
		}
	}
}
