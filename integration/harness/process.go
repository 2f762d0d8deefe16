package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spawner starts every process from one OS thread that never ends: the kernel
// sends the parent-death signal when the thread that started a child ends, and
// Go's other threads may end before the process does.
var spawner = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// A Process is a child that dies with its test.
type Process struct {
	// Log is the file with its standard output and error.
	Log string

	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// StartProcess runs a binary with extra environment ("NAME=value") and its
// output appended to logPath. It is killed at the end of the test.
func StartProcess(t T, name, bin string, args, env []string, logPath string) *Process {
	t.Helper()
	return startProcess(t, name, bin, args, env, logPath, nil)
}

// startProcess is StartProcess with something done to the process before it
// has run its first instruction; nil: nothing.
func startProcess(t T, name, bin string, args, env []string, logPath string, before func(pid int) error) *Process {
	t.Helper()
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatalf("open log of %s: %v", name, err)
	}
	defer out.Close()
	cmd := exec.Command(bin, args...)
	cmd.Dir = filepath.Dir(logPath)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &Process{Log: logPath, name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	spawner() <- func() { started <- begin(cmd, before) }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.Kill)
	return p
}

// begin starts a command, stopped while before has its way. It is called by the
// spawner's thread: that is the one which may let the process go on.
func begin(cmd *exec.Cmd, before func(pid int) error) error {
	if before == nil {
		return cmd.Start()
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, 0, nil)
	if err == nil && !status.Stopped() {
		err = fmt.Errorf("it was to be stopped at its start: %v", status)
	}
	if err == nil {
		err = before(pid)
	}
	if err = errors.Join(err, syscall.PtraceDetach(pid)); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	return err
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive tells whether the process has not ended yet.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Freeze stops the process (SIGSTOP), and returns when none of its threads runs.
func (p *Process) Freeze(t T) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("freeze %s: %v", p.name, err)
	}
	WaitFor(t, p.name+" to stand still", 30*time.Second, func(context.Context) error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			raw, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended
			}
			_, state, _ := strings.Cut(string(raw), ") ")
			if !strings.HasPrefix(state, "T") {
				return fmt.Errorf("%s: %s", thread, raw)
			}
		}
		return nil
	})
}

// Thaw lets it go on.
func (p *Process) Thaw(t T) {
	t.Helper()
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatalf("thaw %s: %v", p.name, err)
	}
}

// Wait waits for the end of the process and returns its exit code, or an
// error after the deadline. A process ended by a signal has code -1.
func (p *Process) Wait(deadline time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(deadline):
		return 0, fmt.Errorf("%s (pid %d) still runs after %s", p.name, p.PID(), deadline)
	}
}

// Memory is what the kernel says of a process's memory, in bytes.
type Memory struct {
	Peak int64 // VmHWM: the most that was ever resident
	Now  int64 // VmRSS
	Anon int64 // RssAnon: what is not backed by a file
}

// Memory reads /proc/PID/status.
func (p *Process) Memory() (Memory, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for line := range strings.Lines(string(raw)) {
		key, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch key {
		case "VmHWM":
			to = &m.Peak
		case "VmRSS":
			to = &m.Now
		case "RssAnon":
			to = &m.Anon
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("read %q: %w", line, err)
		}
		*to = kib << 10
	}
	if m.Peak == 0 {
		return m, errors.New("the process has no memory any more")
	}
	return m, nil
}

// A Result is what a command left behind.
type Result struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// run runs a command to its end, at most for the deadline.
func run(t T, deadline time.Duration, dir string, env []string, bin string, args ...string) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	start := time.Now()
	started := make(chan error, 1)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", bin, err)
	}
	timer := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%s %s did not end within %s\nstdout: %s\nstderr: %s", filepath.Base(bin), strings.Join(args, " "), deadline, stdout.String(), stderr.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", bin, err)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
}
