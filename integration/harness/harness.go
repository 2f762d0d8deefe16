// Package harness builds a small world around the real twinport binary: real
// CNCF distribution registries as processes on loopback, their own
// notifications, a proxy that injects faults in front of any of them, a relay
// that holds, shuffles or doubles notifications, and a deterministic generator
// of image content whose every byte can be compared afterwards.
//
// Everything a test starts is killed when the test ends; processes are also
// told by the kernel to die with the test binary, so that a panic or a timeout
// leaves nothing behind. Nothing waits by sleeping: WaitFor asks for a
// condition until a deadline, and failures print what the daemon logged.
//
// The package knows twinport only from outside: its config file, commands,
// JSON and addresses.
package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// A T is what the harness needs of a test; *testing.T is one, and the demo
// brings its own.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(f func())
	TempDir() string
	Context() context.Context
}

// Root is the repository's root directory: the parent of this module.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		panic("harness: no caller information")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// WaitFor asks check until it returns nil, and fails the test with its last
// error after the deadline. The pause between two questions grows from 2 ms to
// 100 ms.
func WaitFor(t T, what string, deadline time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	if err := Poll(t.Context(), deadline, check); err != nil {
		t.Fatalf("waited %s for %s: %v", deadline, what, err)
	}
}

// WaitForEach waits until check has returned nil for each of 0…n-1, in order;
// none is asked again after it has.
func WaitForEach(t T, what string, deadline time.Duration, n int, check func(ctx context.Context, i int) error) {
	t.Helper()
	next := 0
	WaitFor(t, what, deadline, func(ctx context.Context) error {
		for ; next < n; next++ {
			if err := check(ctx, next); err != nil {
				return fmt.Errorf("number %d of %d: %w", next, n, err)
			}
		}
		return nil
	})
}

// Poll is WaitFor without a test: it returns the last error of check.
func Poll(ctx context.Context, deadline time.Duration, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	pause := 2 * time.Millisecond
	var last error
	for {
		err := check(ctx)
		if err == nil || errors.Is(err, ErrEnded) { // it does not come back by itself
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err // an answer cut short by the deadline tells less than the one before
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(pause):
		}
		pause = min(pause*3/2, 100*time.Millisecond)
	}
}

var ports struct {
	mu    sync.Mutex
	given map[int]bool
}

// FreePort returns a loopback port that nobody listens on. It lies below the
// range the kernel takes outgoing connections' ports from, so that a process
// can be stopped and started again on it.
func FreePort(t T) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.given == nil {
		ports.given = make(map[int]bool)
	}
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		ports.given[port] = true
		return port
	}
	t.Fatalf("no free loopback port found")
	return 0
}

// tail returns the last n bytes of a file, for failure dumps.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err.Error()
	}
	from := max(0, size-n)
	buf := make([]byte, size-from)
	if _, err := f.ReadAt(buf, from); err != nil {
		return err.Error()
	}
	if from > 0 {
		return "…" + string(buf)
	}
	return string(buf)
}
