package intake

import (
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// quietTime is how often one kind of refusal is logged for one registry: a
// stranger at the door must not fill the log.
const quietTime = 10 * time.Second

// A quietLog tells of requests that were turned away. URLs and headers, where
// secrets are, never reach it.
type quietLog struct {
	log *zap.Logger
	now func() time.Time

	mu    sync.Mutex
	lines map[line]*silence // bounded: registries of the config times our statuses
}

type line struct {
	registry string
	status   int
}

type silence struct {
	until   time.Time
	skipped int
}

func (q *quietLog) answered(registry string, a reply) {
	if a.status < http.StatusBadRequest {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lines == nil {
		q.lines = make(map[line]*silence)
	}
	s := q.lines[line{registry, a.status}]
	if s == nil {
		s = &silence{}
		q.lines[line{registry, a.status}] = s
	}
	now := q.now()
	if now.Before(s.until) {
		s.skipped++
		return
	}
	q.log.Warn("webhook refused", zap.String("registry", registry), zap.Int("status", a.status),
		zap.String("reason", a.problem), zap.Int("skipped", s.skipped), zap.Error(a.detail))
	s.until, s.skipped = now.Add(quietTime), 0
}
