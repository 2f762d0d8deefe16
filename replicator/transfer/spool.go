package transfer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// spoolBlock is the unit in which what comes back from a spool file is hashed.
	spoolBlock = 32 << 10
	// spoolSuffix ends the names of our files: nothing else is ever removed.
	spoolSuffix = ".spool"
	// spoolCheck is how many bytes may be written between looks at the
	// filesystem, where it has room for many times as much.
	spoolCheck = 64 << 20
)

// errSpoolFull: the spool has no room; the destination that needs it drops out.
var errSpoolFull = errors.New("the spool is full")

// A spool keeps what a slow destination has yet to read on disk.
type spool struct {
	dir  string
	max  int64
	used atomic.Int64

	mu      sync.Mutex
	ready   bool
	counter int64
	checked int64 // bytes still to be written before the next look
}

// open makes a file for a blob from an offset on.
func (s *spool) open(d digest.Digest, start int64) (*spoolFile, error) {
	if s.dir == "" {
		return nil, errSpoolFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		if err := s.empty(); err != nil {
			return nil, err // tried again: a disk that is full now is not for good
		}
		s.ready = true
	}
	s.counter++
	name := filepath.Join(s.dir, fmt.Sprintf("%s-%s.%d%s", d.Algorithm(), d.Encoded(), s.counter, spoolSuffix))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &spoolFile{s: s, f: f, start: start}, nil
}

// empty removes what an earlier process left behind; the lock is held.
func (s *spool) empty() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), spoolSuffix) {
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return fmt.Errorf("spool: %w", err)
			}
		}
	}
	return nil
}

// reserve takes n bytes of the spool, or gives errSpoolFull.
func (s *spool) reserve(n int64) error {
	if s.used.Add(n) > s.max {
		s.used.Add(-n)
		return errSpoolFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checked -= n; s.checked <= 0 {
		s.checked = spoolCheck
		if free, total, ok := freeSpace(s.dir); ok {
			room := free - min(1<<30, total/10)
			if room < n {
				s.checked = 0
				s.used.Add(-n)
				return errSpoolFull
			}
			s.checked = min(spoolCheck, room/4) // what is reserved is not all written yet
		}
	}
	return nil
}

// A spoolFile holds a blob from start on. What it gives back is what was
// written, or an error: each block is hashed when written and when read.
type spoolFile struct {
	s     *spool
	f     *os.File
	start int64

	mu     sync.Mutex
	size   int64 // bytes written
	hashes [][sha256.Size]byte
	closed bool
}

// append writes the next bytes: whole blocks, but for the blob's last.
func (f *spoolFile) append(p []byte) error {
	if err := f.s.reserve(int64(len(p))); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		f.s.used.Add(-int64(len(p)))
		return errSpoolFull
	}
	if _, err := f.f.WriteAt(p, f.size); err != nil {
		f.s.used.Add(-int64(len(p)))
		return fmt.Errorf("%w: %w", errSpoolFull, err)
	}
	f.size += int64(len(p))
	for len(p) > 0 {
		n := min(len(p), spoolBlock)
		f.hashes = append(f.hashes, sha256.Sum256(p[:n]))
		p = p[n:]
	}
	return nil
}

// end is the offset in the blob behind the last byte written.
func (f *spoolFile) end() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.start + f.size
}

var spoolBlocks = sync.Pool{New: func() any { return new([spoolBlock]byte) }}

// readAt gives bytes of the blob from an offset that has been written.
func (f *spoolFile) readAt(p []byte, offset int64) (int, error) {
	at := offset - f.start
	f.mu.Lock()
	if f.closed || at < 0 || at >= f.size {
		f.mu.Unlock()
		return 0, fmt.Errorf("spool: nothing at %d: %w", offset, oci.ErrInterrupted)
	}
	block := at / spoolBlock
	n := int(min(f.size-block*spoolBlock, spoolBlock))
	want := f.hashes[block]
	f.mu.Unlock()

	skip := int(at - block*spoolBlock)
	buf := p
	if skip > 0 || len(p) < n {
		kept := spoolBlocks.Get().(*[spoolBlock]byte)
		defer spoolBlocks.Put(kept)
		buf = kept[:]
	}
	if _, err := f.f.ReadAt(buf[:n], block*spoolBlock); err != nil && err != io.EOF {
		return 0, fmt.Errorf("spool: %w: %w", oci.ErrInterrupted, err)
	}
	if sha256.Sum256(buf[:n]) != want {
		return 0, fmt.Errorf("spool: %s is damaged: %w", f.f.Name(), oci.ErrInterrupted)
	}
	if skip > 0 || len(p) < n {
		return copy(p, buf[skip:n]), nil
	}
	return n, nil
}

// close removes the file.
func (f *spoolFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed = true
	f.s.used.Add(-f.size)
	_ = f.f.Close() // it is removed: what it held is not wanted
	_ = os.Remove(f.f.Name())
}
