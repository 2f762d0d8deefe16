package generic

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"
)

// pinFor is how long one address is kept where it answers: longer than nearly
// every image takes, short enough that a region which DNS has left is left.
const pinFor = 15 * time.Minute

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// A pin keeps all new connections to one host on one of its addresses: behind a
// name that leads to any of several replicas, layers would land on one and their
// manifest on another. An address that cannot be reached is let go at once.
type pin struct {
	host string // host:port
	next dialFunc
	now  func() time.Time

	first sync.Mutex // one dial by name at a time, or two would pin two
	mu    sync.Mutex
	addr  string
	until time.Time
}

func (p *pin) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !strings.EqualFold(address, p.host) {
		return p.next(ctx, network, address)
	}
	if conn := p.again(ctx, network); conn != nil {
		return conn, nil
	}
	p.first.Lock()
	defer p.first.Unlock()
	if conn := p.again(ctx, network); conn != nil { // of whoever was before us
		return conn, nil
	}
	conn, err := p.next(ctx, network, address)
	if err == nil {
		p.mu.Lock()
		p.addr, p.until = conn.RemoteAddr().String(), p.now().Add(pinFor)
		p.mu.Unlock()
	}
	return conn, err
}

// again connects to the pinned address, nil where there is none that answers.
func (p *pin) again(ctx context.Context, network string) net.Conn {
	p.mu.Lock()
	addr := p.addr
	if !p.now().Before(p.until) {
		addr = ""
	}
	p.mu.Unlock()
	if addr == "" {
		return nil
	}
	conn, err := p.next(ctx, network, addr)
	if err == nil {
		return conn
	}
	if ctx.Err() == nil {
		p.mu.Lock()
		if p.addr == addr {
			p.addr = ""
		}
		p.mu.Unlock()
	}
	return nil
}
