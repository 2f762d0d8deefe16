package harness

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A Balancer hands webhooks to daemons in turn, as a load balancer does: what
// one cannot take goes to the next.
type Balancer struct {
	// Addr is host:port.
	Addr string

	daemons []*Daemon
	turn    atomic.Int64
	client  *http.Client
}

// StartBalancer starts one at an address that is to be known before the
// daemons are; Serve tells it of them.
func StartBalancer(t T) *Balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("balancer: %v", err)
	}
	b := &Balancer{Addr: l.Addr().String(), client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{}}}
	server := &http.Server{Handler: b}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		b.client.CloseIdleConnections()
	})
	return b
}

// Serve hands what comes from now on to these daemons.
func (b *Balancer) Serve(daemons ...*Daemon) { b.daemons = daemons }

// Endpoint is the webhook of a registry by way of the balancer.
func (b *Balancer) Endpoint(registry string) Endpoint {
	return Endpoint{URL: "http://" + b.Addr + "/hooks/" + registry, Authorization: "Bearer " + Secret(registry)}
}

func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for range b.daemons {
		d := b.daemons[int(b.turn.Add(1))%len(b.daemons)]
		if code := b.pass(r.Context(), d, r, body); code != 0 && code != http.StatusServiceUnavailable {
			w.WriteHeader(code)
			return
		}
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (b *Balancer) pass(ctx context.Context, d *Daemon, r *http.Request, body []byte) int {
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+d.Listen+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header = r.Header.Clone()
	resp, err := b.client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
