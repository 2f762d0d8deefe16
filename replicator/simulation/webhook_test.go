package simulation

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// tell has a registry send its webhook, again and again until it is answered,
// as distribution does. n is the state of the tag that it tells of, 0: none.
func (w *world) tell(s step, n int, format string, args ...any) {
	if s.Lost {
		return
	}
	body := `{"events":[` + fmt.Sprintf(format, args...) + `]}`
	name := fmt.Sprintf("webhook %s %s %s %s %d", s.Registry, s.Repository, s.Tag, s.Kind, n)
	late := of(w.history.Seed, name, 0)
	w.send(s.Registry, name, body, late.between(time.Millisecond, s.Late+20*time.Millisecond), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		at := tagAt{s.Registry, s.Repository, s.Tag}
		w.accepted[at] = max(w.accepted[at], n)
	})
	if late.also("twice").hits(100) {
		w.send(s.Registry, name+" again", body, late.also("twice").between(time.Millisecond, s.Late+5*time.Second), func() {})
	}
}

func (w *world) send(registry, name, body string, after time.Duration, accepted func()) {
	w.senders.Go(func() {
		time.Sleep(after)
		for {
			code := w.post(registry, body)
			w.trace("%s: %d", name, code)
			switch code {
			case http.StatusAccepted:
				accepted()
				return
			case 0, http.StatusServiceUnavailable:
			default:
				w.fault("%s was answered %d", name, code)
				return
			}
			time.Sleep(w.chance.now(name).between(500*time.Millisecond, 2*time.Second))
			if w.over() {
				return
			}
		}
	})
}

func (w *world) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ending
}

// post gives the answer's status, 0 where there was none.
func (w *world) post(registry, body string) int {
	p := w.process()
	if p == nil {
		return 0
	}
	req := httptest.NewRequestWithContext(background, http.MethodPost, "/hooks/"+registry, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	p.intake.ServeHTTP(answer, req)
	if p.dead.Load() {
		return 0
	}
	return answer.Code
}
