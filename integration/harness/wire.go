package harness

import (
	"errors"
	"io"
	"net"
	"sync"
)

// A Wire carries connections to an address, until it is cut: then what is
// under way hangs, and what is new is taken and hangs, too, as behind a network
// that swallows everything.
type Wire struct {
	// Addr is host:port, to be used in place of the address.
	Addr string

	target   string
	listener net.Listener

	mu   sync.Mutex
	open chan struct{} // closed while the wire carries
	all  map[net.Conn]bool
}

// StartWire starts a wire to addr.
func StartWire(t T, addr string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("wire: %v", err)
	}
	w := &Wire{Addr: l.Addr().String(), target: addr, listener: l, open: make(chan struct{}), all: map[net.Conn]bool{}}
	close(w.open)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		w.Mend() // so that whoever waits goes on, and ends
	})
	return w
}

// Cut lets nothing pass any more, either way.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
		w.open = make(chan struct{})
	default:
	}
}

// Mend lets pass what is new; connections from before the cut are closed.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all {
		_ = c.Close()
	}
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

func (w *Wire) gate() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

func (w *Wire) keep(c net.Conn, kept bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if kept {
		w.all[c] = true
	} else {
		delete(w.all, c)
	}
}

func (w *Wire) carry(in net.Conn) {
	w.keep(in, true)
	defer w.keep(in, false)
	defer in.Close()
	<-w.gate()
	out, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	w.keep(out, true)
	defer w.keep(out, false)
	defer out.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			w.pump(way[1], way[0])
			_ = errors.Join(in.Close(), out.Close()) // either end ends both
		})
	}
	both.Wait()
}

func (w *Wire) pump(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		<-w.gate()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
