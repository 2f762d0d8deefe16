package sweep

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// bufferedTags are held in memory per listing; the rest is in a file.
	bufferedTags = 4096
	// maxTags bounds a repository's listing: a registry that goes on is not
	// trusted further.
	maxTags = 5_000_000
)

// A listing collects the tags of one repository and gives them back sorted. It
// is complete before anything is compared, and memory does not grow with it:
// sorted runs are spilled to a file that has no name.
type listing struct {
	dir    string
	buffer []oci.Tag
	file   *os.File
	size   int64
	runs   []run
	n      int
}

// A run is a sorted part of the file.
type run struct {
	from, to int64
	last     string
}

func (l *listing) add(tag oci.Tag) error {
	if l.n++; l.n > maxTags {
		return fmt.Errorf("more than %d tags: %w", maxTags, oci.ErrTooLarge)
	}
	if l.buffer = append(l.buffer, tag); len(l.buffer) < bufferedTags {
		return nil
	}
	if err := l.spill(); err != nil {
		return &spillError{err}
	}
	return nil
}

// A spillError is our own disk's fault and no registry's.
type spillError struct{ err error }

func (e *spillError) Error() string { return "spill a tag listing: " + e.err.Error() }
func (e *spillError) Unwrap() error { return e.err }

func (l *listing) spill() error {
	if l.file == nil {
		file, err := os.CreateTemp(l.dir, "sweep-*")
		if err != nil {
			return err
		}
		l.file = file
		if err := os.Remove(file.Name()); err != nil {
			return err
		}
	}
	l.sort()
	encoded := make([]byte, 0, bufferedTags*100)
	for _, tag := range l.buffer {
		encoded = appendTag(encoded, tag)
	}
	if _, err := l.file.WriteAt(encoded, l.size); err != nil {
		return err
	}
	from, to, last := l.size, l.size+int64(len(encoded)), l.buffer[len(l.buffer)-1].Name
	if n := len(l.runs); n > 0 && l.runs[n-1].last <= l.buffer[0].Name {
		l.runs[n-1].to, l.runs[n-1].last = to, last // what comes sorted stays one run
	} else {
		l.runs = append(l.runs, run{from, to, last})
	}
	l.size = to
	clear(l.buffer)
	l.buffer = l.buffer[:0]
	return nil
}

func (l *listing) sort() {
	slices.SortStableFunc(l.buffer, func(a, b oci.Tag) int { return cmp.Compare(a.Name, b.Name) })
}

// close lets the file go; nil is fine.
func (l *listing) close() {
	if l != nil && l.file != nil {
		_ = l.file.Close() // it has no name and nobody needs its bytes
	}
}

// read gives the tags sorted, each name once. Nothing may be added any more.
func (l *listing) read() (*reader, error) {
	l.sort()
	r := &reader{}
	for _, run := range l.runs {
		source := &tagSource{order: len(r.sources), r: bufio.NewReaderSize(io.NewSectionReader(l.file, run.from, run.to-run.from), 4096)}
		if err := r.push(source); err != nil {
			return nil, err
		}
	}
	return r, r.push(&tagSource{order: len(r.sources), tags: l.buffer})
}

// A reader merges the runs of a listing.
type reader struct {
	sources tagHeap
	last    string
	began   bool
}

func (r *reader) push(source *tagSource) error {
	ok, err := source.advance()
	if ok {
		heap.Push(&r.sources, source)
	}
	return err
}

// next gives the next tag, false at the end.
func (r *reader) next() (oci.Tag, bool, error) {
	for len(r.sources) > 0 {
		source := r.sources[0]
		tag := source.head
		ok, err := source.advance()
		if err != nil {
			return oci.Tag{}, false, err
		}
		if ok {
			heap.Fix(&r.sources, 0)
		} else {
			heap.Pop(&r.sources)
		}
		if r.began && tag.Name == r.last {
			continue // pages that shift while they are read tell a tag twice
		}
		r.began, r.last = true, tag.Name
		return tag, true, nil
	}
	return oci.Tag{}, false, nil
}

// A tagSource is a run in the file, or what is still in memory.
type tagSource struct {
	order int
	head  oci.Tag
	r     *bufio.Reader
	tags  []oci.Tag
}

func (s *tagSource) advance() (bool, error) {
	if s.r == nil {
		if len(s.tags) == 0 {
			return false, nil
		}
		s.head, s.tags = s.tags[0], s.tags[1:]
		return true, nil
	}
	tag, err := readTag(s.r)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, &spillError{err}
	}
	s.head = tag
	return true, nil
}

type tagHeap []*tagSource

func (h tagHeap) Len() int { return len(h) }
func (h tagHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].head.Name, h[j].head.Name), cmp.Compare(h[i].order, h[j].order)) < 0
}
func (h tagHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *tagHeap) Push(x any)   { *h = append(*h, x.(*tagSource)) }
func (h *tagHeap) Pop() any {
	last := len(*h) - 1
	source := (*h)[last]
	*h = (*h)[:last]
	return source
}

func appendTag(b []byte, tag oci.Tag) []byte {
	b = binary.AppendUvarint(b, uint64(len(tag.Name)))
	b = append(b, tag.Name...)
	b = binary.AppendUvarint(b, uint64(len(tag.Digest)))
	b = append(b, tag.Digest...)
	at := int64(0)
	if !tag.PushedAt.IsZero() {
		at = tag.PushedAt.UnixMicro()
	}
	return binary.AppendVarint(b, at)
}

// readTag gives io.EOF only before a tag's first byte.
func readTag(r *bufio.Reader) (oci.Tag, error) {
	name, err := readString(r)
	if err != nil {
		return oci.Tag{}, err
	}
	d, err := readString(r)
	if err != nil {
		return oci.Tag{}, cut(err)
	}
	at, err := binary.ReadVarint(r)
	if err != nil {
		return oci.Tag{}, cut(err)
	}
	tag := oci.Tag{Name: name, Digest: digest.Digest(d)}
	if at != 0 {
		tag.PushedAt = time.UnixMicro(at).UTC()
	}
	return tag, nil
}

func readString(r *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return "", err
	}
	if n > 4096 {
		return "", fmt.Errorf("a string of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", cut(err)
	}
	return string(b), nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
