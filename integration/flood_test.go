package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// held opens n connections to an address, each of which sends begin and then
// holds on; what the other side does is not looked at.
func held(t *testing.T, addr, begin string, n int) {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	err := harness.Each(t.Context(), n, func(ctx context.Context, _ int) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		mu.Lock()
		conns = append(conns, conn)
		mu.Unlock()
		_, _ = io.WriteString(conn, begin) // it may be closed by then
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAFloodOfConnections: 10,000 connections that hold on in all the ways
// there are, at the webhooks' address and the operators'. Every good webhook is
// accepted meanwhile, and memory stays below 200 MiB.
func TestAFloodOfConnections(t *testing.T) {
	most := scaled(10_000, 2000)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < uint64(most)+500 {
		most = int(files.Cur) - 500 // as many as this process may hold
	}
	w := start(t, setup{exact: true})
	first := w.content.Image(harness.ImageSpec{})
	w.push("team/app", first, "v0")
	harness.WaitHas(t, w.us, "team/app", "v0", first, time.Minute)
	info, err := w.Info()
	if err != nil {
		t.Fatal(err)
	}
	ways := []string{
		"",
		"POST /hooks/eu HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"POST /hooks/eu HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + harness.Secret("eu") + "\r\nContent-Length: 100\r\n\r\n{",
		"POST /hooks/eu HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=" + strings.Repeat("a", 64) + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	}
	var n, refused int
	for i, begin := range ways {
		held(t, info.Listen, begin, most/len(ways)*4/5)
		held(t, info.Admin, begin, most/len(ways)/5)
		for range 20 {
			n++
			img := w.content.Image(harness.ImageSpec{})
			body := harness.PushEvent(w.reg["eu"].Addr, fmt.Sprintf("team/flood%d", i), fmt.Sprint("v", n), img, time.Now())
			if code, answer := w.Post(t.Context(), "eu", body); code != http.StatusAccepted {
				refused++
				t.Logf("webhook %d: %d %s", n, code, answer)
			}
		}
	}
	if refused > 0 {
		t.Errorf("%d of %d webhooks were not accepted", refused, n)
	}
	if _, err := w.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, time.Minute)
	w.below(200 << 20)
}
