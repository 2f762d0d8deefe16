package providertest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Proxy is a registry elsewhere as a fake's upstream. The registry is asked by
// the name that the fake was, so that the addresses it gives lead to the fake.
func Proxy(base string) http.Handler {
	at, err := url.Parse(base)
	if err != nil {
		panic(err) // a test's own words
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(at)
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Expect") // the fake's own server has said to go on
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			Fail(w, http.StatusBadGateway, "UNKNOWN", "the upstream does not answer")
		},
	}
}

// Distribution starts the CNCF registry where the tools of the repository are
// built, or skips the test, and gives its address as http://host:port. auth is
// a part of its config.
func Distribution(t *testing.T, auth string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(filepath.Dir(here), "..", "..", ".cache", "bin", "registry")
	if _, err := os.Stat(binary); err != nil {
		t.Skip("distribution's registry is not built")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n%s", filepath.Join(dir, "data"), addr, auth)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	up, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	for {
		req, err := http.NewRequestWithContext(up, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			return "http://" + addr
		}
		select {
		case <-up.Done():
			t.Fatal("distribution's registry does not start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
