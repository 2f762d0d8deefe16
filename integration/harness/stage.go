package harness

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// A Stage is a T of a program: what goes wrong ends it, and what was started is
// ended in the opposite order.
type Stage struct {
	// Terminal tells whether a person looks at standard output.
	Terminal bool

	ctx  context.Context
	name string

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

var _ T = (*Stage)(nil)

// NewStage gives a program of this name its stage; ctx ends when it is interrupted.
func NewStage(ctx context.Context, name string) *Stage {
	s := &Stage{ctx: ctx, name: name}
	if info, err := os.Stdout.Stat(); err == nil {
		s.Terminal = info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

type stopped struct{}

// Run runs f, then all cleanups, and returns the exit code.
func (s *Stage) Run(f func()) (code int) {
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

// Say prints a line.
func (s *Stage) Say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Helper is a test's alone.
func (s *Stage) Helper() {}

// Name is the program's.
func (s *Stage) Name() string { return s.name }

// Context ends when the program is interrupted.
func (s *Stage) Context() context.Context { return s.ctx }

// Logf is for what helps after a failure.
func (s *Stage) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// Errorf tells of a failure, and goes on.
func (s *Stage) Errorf(format string, args ...any) {
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	if s.ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, s.name+": "+format+"\n", args...)
	}
}

// Fatalf tells of a failure, and ends the program.
func (s *Stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	panic(stopped{})
}

// Failed tells whether anything has failed.
func (s *Stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed && s.ctx.Err() == nil // an interrupted program has no failure to explain
}

// Cleanup has f run at the end.
func (s *Stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// TempDir makes a directory that is removed at the end.
func (s *Stage) TempDir() string {
	dir, err := os.MkdirTemp("", "twinport-"+s.name+"-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
