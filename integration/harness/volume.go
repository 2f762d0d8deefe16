package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A Volume is a small filesystem for a daemon's data, in memory, which can be
// full. It is mounted in a namespace of its own: root may do that, and others
// where the kernel has user namespaces. Where neither is possible, as in most
// containers, it is a plain directory, and a full disk is a limit on the size
// of the daemon's files: its writes then fail in the same places, with EFBIG.
type Volume struct {
	// Path is the filesystem as the daemon knows it.
	Path string

	t      T
	holder *Process // keeps the namespace; nil: a plain directory
	owner  bool     // of the namespace's users, too
}

const filler = "filler"

// NewVolume makes a filesystem of so many bytes.
func NewVolume(t T, size int64) *Volume {
	t.Helper()
	v := &Volume{Path: filepath.Join(t.TempDir(), "volume"), t: t, owner: os.Getuid() != 0}
	if err := os.MkdirAll(v.Path, 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	args := []string{"--mount"}
	if v.owner {
		args = append(args, "--user", "--map-root-user")
	}
	// What is missing or not allowed is told in the log, and is no mistake. It
	// ends by itself some time, whatever becomes of us.
	args = append(args, "--", "sh", "-c", `mount -t tmpfs -o "size=$1,mode=700" tmpfs "$2" && mkdir "$2/data" && echo mounted && exec sleep 3600`,
		"sh", strconv.FormatInt(size, 10), v.Path)
	log := v.Path + ".log"
	holder := StartProcess(t, "volume", "sh", append([]string{"-c", `exec unshare "$@"`, "sh"}, args...), nil, log)
	WaitFor(t, "the volume", 30*time.Second, func(context.Context) error {
		raw, err := os.ReadFile(log)
		switch {
		case err != nil:
			return err
		case strings.Contains(string(raw), "mounted"):
			v.holder = holder
			return nil
		case !holder.Alive():
			t.Logf("no filesystem of its own, a limit of the daemon's files stands for it: %s", raw)
			return os.MkdirAll(filepath.Join(v.Path, "data"), 0o700)
		}
		return errors.New("it is being mounted")
	})
	return v
}

// Mounted tells whether it is a filesystem.
func (v *Volume) Mounted() bool { return v.holder != nil }

// Seen is the filesystem as others than the daemon may read it.
func (v *Volume) Seen() string {
	if v.holder == nil {
		return v.Path
	}
	return fmt.Sprintf("/proc/%d/root%s", v.holder.PID(), v.Path)
}

// enter is what a command has to be preceded by to see the filesystem.
func (v *Volume) enter() []string {
	if v.holder == nil {
		return nil
	}
	command := []string{"nsenter", "--target", strconv.Itoa(v.holder.PID()), "--mount"}
	if v.owner {
		command = append(command, "--user", "--preserve-credentials")
	}
	return append(command, "--")
}

// Fill leaves no byte free, for a daemon that runs.
func (d *Daemon) Fill() {
	d.t.Helper()
	if !d.Volume.Mounted() {
		d.LimitFiles(0)
		return
	}
	f, err := os.Create(filepath.Join(d.Volume.Seen(), filler))
	if err != nil {
		d.t.Fatalf("fill the volume: %v", err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("fill the volume: %v", err)
	}
}

// MakeRoom ends Fill.
func (d *Daemon) MakeRoom() {
	d.t.Helper()
	if !d.Volume.Mounted() {
		d.LimitFiles(-1)
		return
	}
	if err := os.Remove(filepath.Join(d.Volume.Seen(), filler)); err != nil {
		d.t.Fatalf("make room: %v", err)
	}
}

// ReadOnly remounts the filesystem, while no daemon runs on it; false: it is none.
func (v *Volume) ReadOnly() bool {
	v.t.Helper()
	if v.holder == nil {
		return false
	}
	command := append(v.enter(), "mount", "-o", "remount,bind,ro", v.Path)
	if r := run(v.t, time.Minute, "/", nil, command[0], command[1:]...); r.Code != 0 {
		v.t.Fatalf("remount the volume: %s", r.Stderr)
	}
	return true
}

// LimitFiles has the daemon's writes beyond so many bytes of a file fail from
// now on, those to its log among them; below 0: none.
func (d *Daemon) LimitFiles(size int64) {
	d.t.Helper()
	var limit syscall.Rlimit
	prlimit := func(now, before *syscall.Rlimit) {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(d.process.PID()), syscall.RLIMIT_FSIZE,
			uintptr(unsafe.Pointer(now)), uintptr(unsafe.Pointer(before)), 0, 0)
		if errno != 0 {
			d.t.Fatalf("limit the daemon's files: %v", errno)
		}
	}
	prlimit(nil, &limit)
	if limit.Cur = limit.Max; size >= 0 {
		limit.Cur = uint64(size)
	}
	prlimit(&limit, nil)
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
