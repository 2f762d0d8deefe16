package daemon

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// publicCrowd and adminCrowd bound the connections of the two addresses; a
	// quarter of the process's descriptors is all that either gets.
	publicCrowd = 1024
	adminCrowd  = 256
	// shedTime is how often it is logged that connections were closed.
	shedTime = time.Minute
)

// A crowd is a listener with a bound on its connections. Where there are too
// many, the one that has for the longest time not shown a whole request is
// closed: senders send theirs at once, and are let through however many others
// only hold on.
type crowd struct {
	net.Listener
	max int
	log *zap.Logger
	now func() time.Time
	// relieve takes back descriptors that are held for nothing.
	relieve func()

	mu      sync.Mutex
	open    int
	waiting list.List // *visitor, the longest first
	shed    int       // since it was logged
	quiet   time.Time // until then
}

// newCrowd bounds a listener to at most max connections.
func newCrowd(l net.Listener, most int, log *zap.Logger) *crowd {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur/4 < uint64(most) {
		most = max(int(files.Cur/4), 8)
	}
	return &crowd{Listener: l, max: most, log: log, now: time.Now, relieve: func() {}}
}

// A visitor is one connection.
type visitor struct {
	net.Conn
	crowd *crowd

	// What follows is the crowd's, under its mu.
	place *list.Element // among the waiting, nil while served
	gone  bool
}

// Accept gives the next connection, after making room for it.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				// Without it, connections to registries that are only kept for
				// the next request would keep everybody out.
				c.relieve()
				if oldest := c.oldest(); oldest != nil {
					oldest.turnAway()
					continue
				}
			}
			return nil, err // which is tried again, after a pause
		}
		v := &visitor{Conn: conn, crowd: c}
		c.mu.Lock()
		c.open++
		v.place = c.waiting.PushBack(v)
		over := c.open > c.max
		c.mu.Unlock()
		if over {
			// With all others being served that is the newcomer itself.
			if oldest := c.oldest(); oldest != nil {
				oldest.turnAway()
			}
		}
		return v, nil
	}
}

// oldest is who has waited the longest, nil where nobody does.
func (c *crowd) oldest() *visitor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.waiting.Front(); first != nil {
		return first.Value.(*visitor)
	}
	return nil
}

// turnAway closes a connection to make room.
func (v *visitor) turnAway() {
	_ = v.Close() // nobody waits for what it had to say
	c := v.crowd
	c.mu.Lock()
	c.shed++
	n, tell := c.shed, !c.now().Before(c.quiet)
	if tell {
		c.shed, c.quiet = 0, c.now().Add(shedTime)
	}
	c.mu.Unlock()
	if tell {
		c.log.Warn("too many connections: those that show no whole request are closed",
			zap.String("address", c.Addr().String()), zap.Int("most", c.max), zap.Int("closed", n))
	}
}

// Close gives the visitor's place free.
func (v *visitor) Close() error {
	c := v.crowd
	c.mu.Lock()
	if !v.gone {
		v.gone = true
		c.open--
		if v.place != nil {
			c.waiting.Remove(v.place)
			v.place = nil
		}
	}
	c.mu.Unlock()
	return v.Conn.Close()
}

// served: a whole request has come, which is answered now.
func (v *visitor) served() {
	c := v.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.place != nil {
		c.waiting.Remove(v.place)
		v.place = nil
	}
}

// waits: the next request is waited for.
func (v *visitor) waits() {
	c := v.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.place == nil && !v.gone {
		v.place = c.waiting.PushBack(v)
	}
}

type visitorKey struct{}

func visitorOf(conn net.Conn) *visitor {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	v, _ := conn.(*visitor)
	return v
}

// guard has a server, which is to serve the crowd, tell what goes on.
func (c *crowd) guard(s *http.Server) {
	s.Handler = c.handler(s.Handler)
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, visitorKey{}, visitorOf(conn))
	}
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		if v := visitorOf(conn); v != nil && state == http.StateIdle { // the answer has gone out
			v.waits()
		}
	}
}

// handler notes when requests have come whole.
func (*crowd) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := r.Context().Value(visitorKey{}).(*visitor)
		switch {
		case !ok || v == nil:
		case r.Body == nil || r.Body == http.NoBody:
			v.served()
		default:
			r.Body = &arriving{r.Body, v}
		}
		next.ServeHTTP(w, r)
	})
}

// arriving is a request's body that tells when it has come whole.
type arriving struct {
	io.ReadCloser
	v *visitor
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == io.EOF {
		a.v.served()
	}
	return n, err
}
