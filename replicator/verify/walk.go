package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxManifests and maxBlobs bound one walk.
	maxManifests = 20_000
	maxBlobs     = 200_000
	// maxUnsized is the largest blob that is read where the registry tells no
	// size; of larger ones presence is all that is proven without Deep.
	maxUnsized = 16 << 20
	// deepTries bounds the readings of one blob.
	deepTries = 3
)

// A walk goes down a graph level by level, everything of one level side by side.
type walk struct {
	dst     oci.Repository
	options Options
	seen    map[digest.Digest]bool // manifests
	blobs   map[digest.Digest]bool
	// next are the manifests and blobs still to be looked at.
	nextManifests, nextBlobs []v1.Descriptor

	mu     sync.Mutex
	report Report
	parsed []oci.References // of the level under way
}

func newWalk(dst oci.Repository, o Options) *walk {
	if o.Concurrency <= 0 {
		o.Concurrency = 16
	}
	w := &walk{dst: dst, options: o, seen: make(map[digest.Digest]bool), blobs: make(map[digest.Digest]bool)}
	for _, d := range o.Referrers {
		w.manifest(v1.Descriptor{Digest: d, Size: -1})
	}
	return w
}

// enter takes a manifest that is at hand as one whose content is to be proven.
func (w *walk) enter(m oci.Manifest) error {
	if oci.CheckDigest(m.Digest) != nil || m.Digest.Algorithm().FromBytes(m.Bytes) != m.Digest {
		return oci.ErrMismatch
	}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return err
	}
	w.seen[m.Digest] = true
	// It may be among the referrers too; it is not read twice.
	w.nextManifests = slices.DeleteFunc(w.nextManifests, func(d v1.Descriptor) bool { return d.Digest == m.Digest })
	w.report.Bytes += int64(len(m.Bytes))
	return w.follow(refs)
}

// follow lists what a manifest names as still to be looked at.
func (w *walk) follow(refs oci.References) error {
	for _, child := range refs.Manifests {
		switch {
		case oci.IsManifest(child.MediaType) || child.MediaType == "":
			w.manifest(child)
		case !oci.IsForeign(child): // indexes may list plain content
			w.blob(child)
		}
	}
	for _, desc := range refs.Blobs {
		w.blob(desc)
	}
	if len(w.seen) > maxManifests || len(w.blobs) > maxBlobs {
		return fmt.Errorf("more than %d manifests or %d blobs: %w", maxManifests, maxBlobs, oci.ErrInvalid)
	}
	return nil
}

func (w *walk) manifest(desc v1.Descriptor) {
	if !w.seen[desc.Digest] {
		w.seen[desc.Digest] = true
		w.nextManifests = append(w.nextManifests, desc)
	}
}

func (w *walk) blob(desc v1.Descriptor) {
	if !w.blobs[desc.Digest] {
		w.blobs[desc.Digest] = true
		w.nextBlobs = append(w.nextBlobs, desc)
	}
}

// run looks at everything listed, and at what that lists.
func (w *walk) run(ctx context.Context) (Report, error) {
	err := w.levels(ctx)
	for _, faults := range [][]Fault{w.report.Missing, w.report.Corrupt} {
		slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	}
	return w.report, err
}

func (w *walk) levels(ctx context.Context) error {
	for depth := 0; len(w.nextManifests)+len(w.nextBlobs) > 0; depth++ {
		if depth > oci.MaxDepth+1 {
			return fmt.Errorf("manifests nest deeper than %d: %w", oci.MaxDepth, oci.ErrInvalid)
		}
		manifests, blobs := w.nextManifests, w.nextBlobs
		w.nextManifests, w.nextBlobs, w.parsed = nil, nil, nil
		group, within := errgroup.WithContext(ctx)
		group.SetLimit(w.options.Concurrency)
		for _, desc := range manifests {
			group.Go(func() error { return w.lookAtManifest(within, desc) })
		}
		for _, some := range w.batches(blobs) {
			group.Go(func() error { return w.lookAtBlobs(within, some) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, refs := range w.parsed {
			if err := w.follow(refs); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

func (w *walk) lookAtManifest(ctx context.Context, desc v1.Descriptor) error {
	m, err := w.dst.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), desc.Digest.String())
	w.count(&w.report.Manifests, max(desc.Size, int64(len(m.Bytes))))
	ok, err := w.judge(desc, m, err)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	if !ok {
		return nil
	}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parsed = append(w.parsed, refs)
	return nil
}

// judge tells whether a manifest is what its descriptor says, and reports it if
// not; an error means that this is not known.
func (w *walk) judge(desc v1.Descriptor, m oci.Manifest, err error) (bool, error) {
	switch {
	case err != nil:
		return false, w.fault(desc, err)
	case m.Digest != desc.Digest || desc.Digest.Algorithm().FromBytes(m.Bytes) != desc.Digest,
		desc.Size >= 0 && desc.Size != int64(len(m.Bytes)):
		return false, w.fault(desc, fmt.Errorf("%d bytes of manifest: %w", len(m.Bytes), oci.ErrMismatch))
	}
	return true, nil
}

// fault reports what an error means for a digest; an error that means nothing
// for it is given back.
func (w *walk) fault(desc v1.Descriptor, err error) error {
	f := Fault{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Err: err}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(err, oci.ErrNotFound):
		w.report.Missing = append(w.report.Missing, f)
	case errors.Is(err, oci.ErrMismatch):
		w.report.Corrupt = append(w.report.Corrupt, f)
	default:
		return err
	}
	return nil
}

func (w *walk) count(what *int, bytes int64) {
	w.mu.Lock()
	*what++
	w.report.Bytes += bytes
	w.mu.Unlock()
	if w.options.Progress != nil {
		w.options.Progress(bytes)
	}
}

// lookAtBlob proves one blob; known is what a batch has said of it.
func (w *walk) lookAtBlob(ctx context.Context, desc v1.Descriptor, known func(v1.Descriptor) error) error {
	var err error
	switch {
	case w.options.Deep:
		err = w.read(ctx, desc)
	case known != nil:
		err = known(desc)
	default:
		err = w.ask(ctx, desc)
	}
	w.count(&w.report.Blobs, desc.Size)
	if err != nil {
		if err := w.fault(desc, err); err != nil {
			return fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
	}
	return nil
}

// ask proves a blob's presence and size, or has seen another proof do so a
// moment ago.
func (w *walk) ask(ctx context.Context, desc v1.Descriptor) error {
	if w.options.Seen == nil {
		return w.stat(ctx, desc)
	}
	key := sight{w.options.Identity, w.dst.Name(), desc.Digest, desc.Size}
	return w.options.Seen.once(ctx, key, func() error { return w.stat(ctx, desc) })
}

func (w *walk) stat(ctx context.Context, desc v1.Descriptor) error {
	size, err := w.dst.Stat(oci.WithOperation(ctx, oci.OpBlobHead), desc.Digest)
	if err != nil {
		return err
	}
	return w.sized(ctx, desc, size)
}

// sized judges a blob by the size that the registry tells, -1: none.
func (w *walk) sized(ctx context.Context, desc v1.Descriptor, size int64) error {
	switch {
	case size >= 0 && size != desc.Size:
		return fmt.Errorf("it has %d bytes, not %d: %w", size, desc.Size, oci.ErrMismatch)
	case size < 0 && desc.Size <= maxUnsized:
		return w.read(ctx, desc)
	}
	return nil
}

// read hashes a blob's bytes.
func (w *walk) read(ctx context.Context, desc v1.Descriptor) error {
	for try := 1; ; try++ {
		short, err := w.readOnce(ctx, desc)
		switch {
		case err == nil || errors.Is(err, oci.ErrNotFound) || ctx.Err() != nil:
			return err
		case errors.Is(err, oci.ErrMismatch):
			return err
		case try == deepTries && short:
			return fmt.Errorf("it ends early: %w: %w", oci.ErrMismatch, err)
		case try == deepTries:
			return err
		}
		t := time.NewTimer(time.Duration(try) * 200 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// readOnce hashes one reading; short: it ended cleanly, too early.
func (w *walk) readOnce(ctx context.Context, desc v1.Descriptor) (short bool, err error) {
	body, err := w.dst.Fetch(oci.WithOperation(ctx, oci.OpBlobRead), desc)
	if err != nil {
		return false, err
	}
	defer body.Close()
	end := &endReader{r: body}
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, oci.NewHashingReader(end, desc), buf[:])
	return err != nil && end.clean, err
}

// endReader notes whether a reading ended with a plain EOF.
type endReader struct {
	r     io.Reader
	clean bool
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.clean = err == io.EOF
	return n, err
}
