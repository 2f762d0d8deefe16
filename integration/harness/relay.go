package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Relay receives a registry's notifications and hands them on to twinport:
// at once, late, or when the test says so, in any order and any number of
// times. To the registry everything is delivered.
type Relay struct {
	// URL is where the registry's notifications go.
	URL string

	server *http.Server
	client *http.Client
	wait   sync.WaitGroup
	stop   context.CancelFunc
	ctx    context.Context

	mu     sync.Mutex
	target string
	auth   string
	hold   bool
	delay  func() time.Duration
	held   [][]byte
	pushes int
	failed error
}

// StartRelay starts a relay that hands on to target with the Authorization given.
func StartRelay(t T, target, authorization string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("relay: %v", err)
	}
	r := &Relay{
		URL: "http://" + l.Addr().String() + "/", target: target, auth: authorization,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}},
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.server = &http.Server{Handler: http.HandlerFunc(r.receive), ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = r.server.Serve(l) }()
	t.Cleanup(func() {
		r.stop()
		_ = r.server.Close()
		r.wait.Wait()
		r.client.CloseIdleConnections()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failed != nil {
			t.Errorf("relay: %v", r.failed)
		}
	})
	return r
}

// Target changes where the relay hands on to.
func (r *Relay) Target(url, authorization string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target, r.auth = url, authorization
}

// Hold keeps what comes from now on until Release.
func (r *Relay) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = true
}

// Delay hands everything on that much later, each request alone, so that they
// overtake each other; nil ends it.
func (r *Relay) Delay(f func() time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = f
}

// Pushes is how many push events of manifests have come.
func (r *Relay) Pushes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pushes
}

// Release hands on what is held, shuffled and doubled as asked, eight at a
// time, and keeps nothing from then on.
func (r *Relay) Release(t T, seed uint64, shuffled, doubled bool) {
	t.Helper()
	r.mu.Lock()
	held := r.held
	r.held, r.hold = nil, false
	r.mu.Unlock()
	if doubled {
		held = append(held, held...)
	}
	if shuffled {
		rng := rand.New(rand.NewPCG(seed, 1))
		rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	}
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(8)
	for _, body := range held {
		g.Go(func() error { return r.deliver(ctx, body) })
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("release: %v", err)
	}
}

func (r *Relay) receive(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 8<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var envelope struct {
		Events []struct {
			Action string
			Target struct{ MediaType string }
		}
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	for _, e := range envelope.Events {
		if e.Action == "push" && e.Target.MediaType != "application/octet-stream" {
			r.pushes++
		}
	}
	hold, delay := r.hold, r.delay
	if hold {
		r.held = append(r.held, body)
	}
	r.mu.Unlock()
	switch {
	case hold:
	case delay != nil:
		r.wait.Add(1)
		go func() {
			defer r.wait.Done()
			select {
			case <-time.After(delay()):
			case <-r.ctx.Done():
				return
			}
			if err := r.deliver(r.ctx, body); err != nil && r.ctx.Err() == nil {
				r.mu.Lock()
				r.failed = err
				r.mu.Unlock()
			}
		}()
	default:
		if err := r.post(req.Context(), body); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable) // the registry tries again
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

func (r *Relay) deliver(ctx context.Context, body []byte) error {
	return Poll(ctx, 30*time.Second, func(ctx context.Context) error { return r.post(ctx, body) })
}

func (r *Relay) post(ctx context.Context, body []byte) error {
	r.mu.Lock()
	target, auth := r.target, r.auth
	r.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("webhook answered %s", resp.Status)
	}
	return nil
}
