package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// crowded serves a crowd of at most n connections.
func crowded(t *testing.T, n int, handler http.Handler, change func(*crowd)) (*crowd, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newCrowd(l, n, zap.NewNop())
	if change != nil {
		change(c)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	c.guard(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(c) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		for c.size() > 0 { // what is closed has been counted out
			runtime.Gosched()
		}
	})
	return c, l.Addr().String()
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })

// deliver sends one whole request on a connection of its own.
func deliver(t *testing.T, addr string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Post("http://"+addr+"/hooks/eu", "application/json", strings.NewReader(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != `{"a":1}` {
		t.Fatalf("%q, %v", body, err)
	}
}

// TestCrowd: many connections that show no whole request, each in its own way,
// and senders in between who all get through.
func TestCrowd(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"nothing sent":      "",
		"headers that drip": "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"a body that drips": "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"a chunk that ends": "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"idle after one":    "POST /hooks/eu HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 20
			c, addr := crowded(t, most, echo, nil)
			for i := range 300 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = io.WriteString(conn, begin) // it may be closed by then
				if i%10 == 0 {
					deliver(t, addr)
				}
			}
			deliver(t, addr)
			if n := c.size(); n > most+1 { // one may just be on its way out
				t.Errorf("%d connections, at most %d are kept", n, most)
			}
		})
	}
}

// TestCrowdServes: who is being served is not turned away, however many come.
func TestCrowdServes(t *testing.T) {
	t.Parallel()
	const most = 8
	began, answer := make(chan struct{}, most), make(chan struct{})
	_, addr := crowded(t, most, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, "served")
	}), nil)
	var clients sync.WaitGroup
	for range most {
		clients.Add(1)
		go func() {
			defer clients.Done()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%+v, %v", resp, err)
			}
		}()
	}
	for range most {
		<-began
	}
	for range 50 { // each is the only one that can go
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger is answered")
		}
		_ = conn.Close()
	}
	close(answer)
	clients.Wait()
}

// TestCrowdWithoutDescriptors: with none left, room is made.
func TestCrowdWithoutDescriptors(t *testing.T) {
	t.Parallel()
	broken := &noDescriptors{failures: 3}
	_, addr := crowded(t, 20, echo, func(c *crowd) {
		broken.Listener = c.Listener
		c.Listener = broken
	})
	idle, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	deliver(t, addr)
}

type noDescriptors struct {
	net.Listener
	accepted, failures int
}

func (n *noDescriptors) Accept() (net.Conn, error) {
	if n.accepted > 0 && n.failures > 0 {
		n.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	n.accepted++
	return n.Listener.Accept()
}

// TestCrowdIsRelieved: with no descriptor left and nobody to turn away, what is
// held for nothing is given back, and the accept is tried again.
func TestCrowdIsRelieved(t *testing.T) {
	t.Parallel()
	relieved := 0
	c := newCrowd(&noDescriptors{accepted: 1, failures: 1}, 8, zap.NewNop())
	c.relieve = func() { relieved++ }
	_, err := c.Accept()
	if relieved != 1 || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("relieved %d times, %v", relieved, err)
	}
}

// TestCrowdTells: the log has a line, not one for each.
func TestCrowdTells(t *testing.T) {
	t.Parallel()
	core, logged := observer.New(zap.WarnLevel)
	_, addr := crowded(t, 8, echo, func(c *crowd) { c.log = zap.New(core) })
	for range 100 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	deliver(t, addr)
	if n := logged.FilterMessageSnippet("too many connections").Len(); n != 1 {
		t.Errorf("%d lines", n)
	}
}
