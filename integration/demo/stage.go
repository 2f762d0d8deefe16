package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/twinport/twinport/integration/harness"
)

// A stage is the demo's harness.T: what goes wrong ends the demo, and what was
// started is ended in the opposite order.
type stage struct {
	ctx      context.Context
	terminal bool

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

var _ harness.T = (*stage)(nil)

func newStage(ctx context.Context) *stage {
	s := &stage{ctx: ctx}
	if info, err := os.Stdout.Stat(); err == nil {
		s.terminal = info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

type stopped struct{}

// run runs f, then all cleanups, and returns the exit code.
func (s *stage) run(f func()) (code int) {
	defer func() {
		for i := len(s.cleanups) - 1; i >= 0; i-- {
			s.cleanups[i]()
		}
		if s.Failed() {
			code = 1
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(stopped); !ok {
				s.Errorf("panic: %v", r)
			}
		}
	}()
	f()
	return 0
}

func (s *stage) say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (s *stage) Helper()                  {}
func (s *stage) Name() string             { return "demo" }
func (s *stage) Context() context.Context { return s.ctx }

// Logf is for what helps after a failure.
func (s *stage) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (s *stage) Errorf(format string, args ...any) {
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	if s.ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "demo: "+format+"\n", args...)
	}
}

func (s *stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	panic(stopped{})
}

func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed && s.ctx.Err() == nil // an interrupted demo has no failure to explain
}

func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "twinport-demo-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
