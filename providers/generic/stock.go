package generic

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxOpen is how many connections are opened ahead at most.
	maxOpen = 64
	// unusedFor is how long one that nobody asks for is kept: some servers
	// answer 408 to who is silent for five seconds from the beginning.
	unusedFor = 2 * time.Second
)

// A stock has connections to one host opened before a request asks for one, so
// that a burst after a quiet time waits for no handshake.
type stock struct {
	host   string        // host:port
	open   dialFunc      // with TLS, where the host has it
	unused time.Duration // how long one is kept that nobody asks for

	mu sync.Mutex
	// alive are the connections not yet closed, coming those being opened.
	alive, coming int
	ready         []*spare
	waiting       []chan net.Conn // each has room for its one answer
}

// A spare is a connection that nobody has asked for yet.
type spare struct {
	conn   net.Conn
	expiry *time.Timer
}

// fill sees to it that n connections are open, in use or not, or on their way.
// It waits for nothing; what cannot be opened is for a request to find out.
func (s *stock) fill(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lacks := min(n, maxOpen) - s.alive - s.coming; lacks > 0; lacks-- {
		s.coming++
		go s.bring()
	}
}

func (s *stock) bring() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout+handshakeTimeout)
	defer cancel()
	conn, err := s.open(ctx, "tcp", s.host)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming--
	if err == nil {
		s.give(s.counted(conn))
	} else if len(s.waiting) > s.coming { // for one of them none is left
		s.answer(nil)
	}
}

// give hands a connection to who has waited longest, or keeps it a moment; s.mu
// is held.
func (s *stock) give(conn net.Conn) {
	if len(s.waiting) > 0 {
		s.answer(conn)
		return
	}
	c := &spare{conn: conn}
	c.expiry = time.AfterFunc(s.unused, func() {
		s.mu.Lock()
		i := slices.Index(s.ready, c)
		if i >= 0 {
			s.ready = slices.Delete(s.ready, i, i+1)
		}
		s.mu.Unlock()
		if i >= 0 {
			_ = conn.Close() // nothing was sent
		}
	})
	s.ready = append(s.ready, c)
}

func (s *stock) answer(conn net.Conn) {
	s.waiting[0] <- conn
	s.waiting = slices.Delete(s.waiting, 0, 1)
}

// take gives a connection that is open or on its way; nil: there is none.
func (s *stock) take(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	if n := len(s.ready); n > 0 {
		c := s.ready[n-1]
		s.ready = s.ready[:n-1]
		s.mu.Unlock()
		c.expiry.Stop()
		return c.conn, nil
	}
	if len(s.waiting) >= s.coming {
		s.mu.Unlock()
		return nil, nil
	}
	turn := make(chan net.Conn, 1)
	s.waiting = append(s.waiting, turn)
	s.mu.Unlock()
	select {
	case conn := <-turn:
		return conn, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, turn); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	} else if conn := <-turn; conn != nil { // it came in the same moment
		s.give(conn)
	}
	return nil, context.Cause(ctx)
}

// first is dial with the stock looked into before, where it is the host's own
// kind of connection that is asked for.
func (s *stock) first(dial dialFunc, own bool) dialFunc {
	if !own {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if !strings.EqualFold(address, s.host) {
			return dial(ctx, network, address)
		}
		if conn, err := s.take(ctx); conn != nil || err != nil {
			return conn, err
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counted(conn), nil
	}
}

// empty closes what nobody has asked for.
func (s *stock) empty() {
	s.mu.Lock()
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	for _, c := range ready {
		c.expiry.Stop()
		_ = c.conn.Close() // nothing was sent
	}
}

// counted has a connection counted until it is closed; s.mu is held.
func (s *stock) counted(conn net.Conn) net.Conn {
	s.alive++
	closed := sync.OnceFunc(func() {
		s.mu.Lock()
		s.alive--
		s.mu.Unlock()
	})
	// The kernel's ways to send and receive (net.TCPConn.ReadFrom) stay open.
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &countedTCP{tcp, closed}
	}
	return &countedConn{conn, closed}
}

type countedTCP struct {
	*net.TCPConn
	closed func()
}

func (c *countedTCP) Close() error {
	defer c.closed()
	return c.TCPConn.Close()
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
