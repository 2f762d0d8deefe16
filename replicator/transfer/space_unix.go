//go:build linux || darwin

package transfer

import "syscall"

// freeSpace tells a directory's filesystem, in bytes.
func freeSpace(dir string) (free, total int64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, false
	}
	block := int64(st.Bsize) //nolint:unconvert // 32 bits on some systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, true
}
