package clouds

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// A Hook posts events as their sender does, one after the other, each until it
// is taken or a minute has passed.
type Hook struct {
	client *http.Client
	events chan []byte

	mu     sync.Mutex
	url    string
	auth   string
	posted int
}

func startHook(t harness.T) *Hook {
	h := &Hook{client: &http.Client{Timeout: 5 * time.Second}, events: make(chan []byte, 10_000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-h.events:
				_ = harness.Poll(ctx, time.Minute, func(ctx context.Context) error { return h.post(ctx, event) })
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		h.client.CloseIdleConnections()
	})
	return h
}

// To has events posted to a URL from now on, with this Authorization where it
// is not empty. Before, they are dropped.
func (h *Hook) To(url, authorization string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.url, h.auth = url, authorization
}

// Posted is how many events were taken.
func (h *Hook) Posted() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.posted
}

// send puts an event in line; where nobody takes them any more it is dropped,
// as senders do.
func (h *Hook) send(event []byte) {
	h.mu.Lock()
	url := h.url
	h.mu.Unlock()
	if url == "" {
		return
	}
	select {
	case h.events <- event:
	default:
	}
}

func (h *Hook) post(ctx context.Context, event []byte) error {
	h.mu.Lock()
	url, auth := h.url, h.auth
	h.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(event))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return &refusal{resp.Status}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.posted++
	return nil
}

type refusal struct{ status string }

func (r *refusal) Error() string { return "webhook answered " + r.status }
