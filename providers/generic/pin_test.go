package generic

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// replicas answers a name by one address after another.
type replicas struct {
	mu    sync.Mutex
	turn  int
	down  string
	dials []string
}

type conn struct {
	net.Conn
	addr string
}

func (c conn) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", c.addr)
	if err != nil {
		panic(err) // ours
	}
	return a
}

func (r *replicas) dial(_ context.Context, _, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addr := address
	if address == "registry.example:443" {
		addr = []string{"192.0.2.1:443", "192.0.2.2:443"}[r.turn%2]
		r.turn++
	}
	r.dials = append(r.dials, addr)
	if addr == r.down {
		return nil, errors.New("refused")
	}
	return conn{addr: addr}, nil
}

func TestPin(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var clock sync.Mutex
	r := &replicas{}
	p := &pin{host: "registry.example:443", next: r.dial, now: func() time.Time { clock.Lock(); defer clock.Unlock(); return now }}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := p.dial(t.Context(), "tcp", "registry.example:443"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(r.dials) != 10 || slices.Contains(r.dials, "192.0.2.2:443") {
		t.Fatalf("dials %v, want one address", r.dials)
	}
	if _, err := p.dial(t.Context(), "tcp", "storage.example:443"); err != nil || r.dials[10] != "storage.example:443" {
		t.Fatalf("another host: %v", r.dials)
	}
	r.down, r.dials = "192.0.2.1:443", nil
	if _, err := p.dial(t.Context(), "tcp", "registry.example:443"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.dials, []string{"192.0.2.1:443", "192.0.2.2:443"}) {
		t.Fatalf("after it fell: %v", r.dials)
	}
	clock.Lock()
	now = now.Add(pinFor)
	clock.Unlock()
	r.down, r.dials = "", nil
	if _, err := p.dial(t.Context(), "tcp", "registry.example:443"); err != nil || !slices.Equal(r.dials, []string{"192.0.2.1:443"}) {
		t.Fatalf("after its time: %v, %v", r.dials, err)
	}
}
