package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	memoryDir    = "/dev/shm"
	memoryPrefix = "twinport-integration-"
	memoryNeeds  = 2 << 30 // bytes free, or the disk is used
)

// quickDir is a directory for what need not outlive the machine: in memory
// where there is room, since a registry syncs every file it writes. It is
// removed at the end of the test.
func quickDir(t T, name string) string {
	t.Helper()
	sweepMemory()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &fs); err != nil || int64(fs.Bavail)*fs.Bsize < memoryNeeds {
		return filepath.Join(t.TempDir(), name)
	}
	dir, err := os.MkdirTemp(memoryDir, fmt.Sprintf("%s%d-%s-", memoryPrefix, os.Getpid(), name))
	if err != nil {
		return filepath.Join(t.TempDir(), name)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// sweepMemory removes what test binaries that were killed left in memory.
var sweepMemory = sync.OnceFunc(func() {
	left, err := filepath.Glob(filepath.Join(memoryDir, memoryPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), memoryPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
})
