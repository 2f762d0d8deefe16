package generic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// opened counts the connections a server is given, by state.
type opened struct {
	mu    sync.Mutex
	state map[net.Conn]http.ConnState
	all   int
	news  chan struct{}
}

func (o *opened) changed(c net.Conn, s http.ConnState) {
	o.mu.Lock()
	if s == http.StateNew {
		o.all++
	}
	o.state[c] = s
	if s == http.StateClosed {
		delete(o.state, c)
	}
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// await waits until both ends have so many open, of so many ever.
func (o *opened) await(t *testing.T, c *Connections, open, all int) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		o.mu.Lock()
		got, ever := len(o.state), o.all
		o.mu.Unlock()
		c.stocked.mu.Lock()
		alive, coming := c.stocked.alive, c.stocked.coming
		c.stocked.mu.Unlock()
		if got == open && ever == all && alive == open && coming == 0 {
			return
		}
		select {
		case <-o.news:
		case <-time.After(5 * time.Millisecond):
		case <-late:
			t.Fatalf("%d connections open of %d, %d here and %d coming, want %d of %d", got, ever, alive, coming, open, all)
		}
	}
}

func warmed(t *testing.T, secure bool) (*Connections, string, *opened) {
	t.Helper()
	o := &opened{state: make(map[net.Conn]http.ConnState), news: make(chan struct{}, 1)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.Config.ConnState = o.changed
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	spec := Spec{Name: "eu", PlainHTTP: !secure}
	if secure {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	_, spec.Host, _ = strings.Cut(server.URL, "://")
	c, err := Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	c.stocked.unused = time.Hour // however slow the machine is
	if secure {
		config := &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
		c.stocked.open = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return handshake(ctx, conn, config, address)
		}
	}
	t.Cleanup(c.CloseIdleConnections)
	return c, server.URL, o
}

func ask(t *testing.T, c *Connections, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A request after Warm opens nothing, with TLS and without.
func TestWarm(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			c, url, o := warmed(t, secure)
			c.Warm(3)
			o.await(t, c, 3, 3)
			c.Warm(3) // there are three
			if proto := ask(t, c, url); proto != "HTTP/1.1" {
				t.Errorf("spoke %s", proto)
			}
			ask(t, c, url)
			o.await(t, c, 3, 3)
			c.Warm(5)
			o.await(t, c, 5, 5)
			c.CloseIdleConnections()
			o.await(t, c, 0, 5)
			c.Warm(1)
			o.await(t, c, 1, 6)
		})
	}
}

// Nobody waits for a connection that will not come, and none that nobody uses stays.
func TestStock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dialed, closed atomic.Int32
		refuse := false
		s := &stock{host: "registry:443", unused: unusedFor}
		s.open = func(context.Context, string, string) (net.Conn, error) {
			dialed.Add(1)
			time.Sleep(time.Second)
			if refuse {
				return nil, errors.New("refused")
			}
			here, _ := net.Pipe()
			return &closing{Conn: here, n: &closed}, nil
		}
		dial := s.first(s.open, true)
		counts := func() (alive, coming int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.alive, s.coming
		}

		began := time.Now()
		s.fill(2)
		for range 2 {
			conn, err := dial(t.Context(), "tcp", "registry:443")
			if err != nil || time.Since(began) != time.Second {
				t.Fatalf("%v after %s: waits for those on their way", err, time.Since(began))
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
		if _, err := dial(t.Context(), "tcp", "elsewhere:443"); err != nil || dialed.Load() != 3 {
			t.Fatalf("%v, %d dialed: another host has nothing to do with it", err, dialed.Load())
		}

		s.fill(5) // two are open
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := dial(ctx, "tcp", "registry:443"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("who gives up gets %v", err)
		}
		time.Sleep(time.Second + unusedFor)
		synctest.Wait()
		if alive, coming := counts(); alive != 2 || coming != 0 || closed.Load() != 3 {
			t.Fatalf("%d open, %d coming, %d closed: what nobody uses is closed", alive, coming, closed.Load())
		}

		refuse = true
		s.fill(3)
		if _, err := dial(t.Context(), "tcp", "registry:443"); err == nil || err.Error() != "refused" {
			t.Fatalf("the one on its way failed, our own told %v", err)
		}
		s.fill(1000)
		if alive, coming := counts(); alive+coming != maxOpen {
			t.Fatalf("%d asked for", alive+coming)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

type closing struct {
	net.Conn
	n *atomic.Int32
}

func (c *closing) Close() error {
	c.n.Add(1)
	return c.Conn.Close()
}
