package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// sessionTries bounds the upload sessions of one blob, resumeTries how
	// often one session goes on after a break, readTries how often a blob whose
	// content is not its digest is read.
	sessionTries = 4
	resumeTries  = 8
	readTries    = 2
	// cancelTimeout bounds the goodbye to a session.
	cancelTimeout = 10 * time.Second
)

// expect keeps places in the reads of blobs for every destination, so that
// those who come later find what was read for the first.
func (k *copying) expect(blobs []v1.Descriptor) {
	if len(k.dests) < 2 {
		return // nobody to share with
	}
	for _, desc := range blobs {
		for _, d := range k.dests {
			d.mu.Lock()
			_, has := d.evidence[desc.Digest]
			_, waits := d.readers[desc.Digest]
			if !has && !waits && !d.over {
				d.readers[desc.Digest] = k.c.reads.reader(k.req.SourceIdentity, k.req.Source, desc)
			}
			d.mu.Unlock()
		}
	}
}

// expectOnce is expect for a graph that several destinations come to one by one.
func (k *copying) expectOnce(root digest.Digest, blobs []v1.Descriptor) {
	k.mu.Lock()
	first := !k.expected[root]
	k.expected[root] = true
	k.mu.Unlock()
	if first {
		k.expect(blobs)
	}
}

// take gives the place kept for a blob, or a new one.
func (k *copying) take(d *dest, desc v1.Descriptor) *reader {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.readers[desc.Digest]; r != nil && r.desc.Size == desc.Size {
		delete(d.readers, desc.Digest)
		return r
	}
	return k.c.reads.reader(k.req.SourceIdentity, k.req.Source, desc)
}

// leaveAll gives up the places still kept: the destination is done.
func (d *dest) leaveAll() {
	d.mu.Lock()
	readers := d.readers
	d.readers = make(map[digest.Digest]*reader)
	d.over = true
	d.mu.Unlock()
	for _, r := range readers {
		r.leave()
	}
}

// blobs brings all of a graph's blobs to a destination, side by side.
func (k *copying) blobs(ctx context.Context, d *dest, blobs []v1.Descriptor) error {
	var missing []v1.Descriptor
	seen := make(map[digest.Digest]bool)
	d.mu.Lock()
	for _, desc := range blobs {
		if _, has := d.evidence[desc.Digest]; !has && !seen[desc.Digest] {
			seen[desc.Digest] = true
			missing = append(missing, desc)
		}
	}
	d.mu.Unlock()
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(k.c.options.BlobConcurrency)
	for _, desc := range missing {
		if within.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := k.blob(within, d, desc); err != nil {
				return &digestError{desc.Digest, fmt.Errorf("blob %s: %w", desc.Digest, err)}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// A blobCopy is one blob on its way to one destination.
type blobCopy struct {
	k    *copying
	d    *dest
	desc v1.Descriptor
	key  blobKey
	r    *reader
	// ask: the blob may be there, so HEAD comes before an upload.
	ask   bool
	reads int
	// place is the turn at the repository: who waits for it sees the bytes move.
	place *uploading
}

// blob gets evidence that a destination has a blob: a HEAD, a mount or an
// upload's 201, each of this very copy.
func (k *copying) blob(ctx context.Context, d *dest, desc v1.Descriptor) error {
	b := &blobCopy{k: k, d: d, desc: desc, key: blobKey{d.Identity, desc.Digest}, r: k.take(d, desc), reads: 1}
	defer func() {
		b.r.leave()
		d.note(func(r *Result) { r.ReadBytes += b.r.sourceBytes() })
	}()
	b.r.answered()
	b.ask = d.Present != nil && d.Present(ctx, desc.Digest)
	for try := 1; ; try++ {
		err := b.once(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !b.worthwhile(err, try) {
			if errors.Is(err, oci.ErrSourceIncomplete) {
				// What the source has lost may have come here in another way.
				if there, _ := b.head(ctx); there {
					return nil
				}
			}
			return err
		}
		k.step(Progress{Step: StepWaiting, Destination: d.index, Digest: desc.Digest})
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// worthwhile tells whether to begin another session after an error, and
// readies the read for it.
func (b *blobCopy) worthwhile(err error, try int) bool {
	var fault *sourceFault
	switch {
	case try >= sessionTries || errors.Is(err, errLagging):
		return false
	case errors.As(err, &fault):
		borrowed := b.r.now().f.src.Name() != b.r.src.Name()
		if borrowed { // another copy's source: it says nothing of ours
			b.r.again(true, true)
			return true
		}
		if !errors.Is(err, oci.ErrMismatch) || b.reads >= readTries {
			return false
		}
		b.reads++
		b.r.again(false, true)
		return true
	case errors.Is(err, oci.ErrInterrupted), errors.Is(err, oci.ErrUploadUnknown),
		errors.Is(err, oci.ErrMismatch): // damaged on its way: what we sent was hashed
		b.r.again(false, false)
		return true
	}
	return false
}

// once is one attempt, by one copy per repository at a time: what another has
// just brought there is there, else HEAD where the blob may be, then mount or
// upload.
func (b *blobCopy) once(ctx context.Context) error {
	name := b.d.Repository.Name()
	waited := func() {
		b.k.step(Progress{Step: StepWaiting, Destination: b.d.index, Digest: b.desc.Digest})
	}
	var place *uploading
	for place == nil {
		if b.k.c.uploads.evident(b.key, name) {
			b.done(StepBlobPresent, func(r *Result) { r.Present++ })
			return nil
		}
		var err error
		if place, _, err = b.k.c.uploads.enter(ctx, placeKey{b.key, name}, name, b.r.leave, waited); err != nil {
			return err
		}
	}
	b.place = place
	err := b.bring(ctx, waited)
	b.k.c.uploads.leave(place, err == nil)
	return err
}

// bring has the blob come to the repository; the turn for that is ours.
func (b *blobCopy) bring(ctx context.Context, waited func()) error {
	if b.ask || slices.Contains(b.k.c.uploads.places(b.key), b.d.Repository.Name()) {
		b.ask = false
		if there, err := b.head(ctx); there || err != nil {
			return err
		}
	}
	turn, landed, err := b.k.c.uploads.enter(ctx, b.key, b.d.Repository.Name(), b.r.leave, waited)
	if err != nil {
		return err
	}
	if turn == nil {
		// Where a mount of what has just landed is refused, waiting for others
		// spares nothing: the upload needs no turn.
		return b.start(ctx, nil, []string{landed})
	}
	err = b.start(ctx, turn, b.candidates(ctx))
	b.k.c.uploads.leave(turn, err == nil)
	return err
}

// head asks whether the blob is there, whole.
func (b *blobCopy) head(ctx context.Context) (bool, error) {
	size, err := b.d.Repository.Stat(oci.WithOperation(ctx, oci.OpBlobHead), b.desc.Digest)
	switch {
	case err == nil && (size < 0 || size == b.desc.Size):
		b.k.c.uploads.remember(b.key, b.d.Repository.Name())
		b.done(StepBlobPresent, func(r *Result) { r.Present++ })
		return true, nil
	case err == nil, errors.Is(err, oci.ErrNotFound), errors.Is(err, oci.ErrUnsupported):
		b.k.c.uploads.forget(b.key, b.d.Repository.Name())
		return false, nil
	}
	return false, err
}

// candidates are repositories to mount from, the surest first.
func (b *blobCopy) candidates(ctx context.Context) []string {
	var from []string
	add := func(repos []string) {
		for _, repo := range repos {
			if repo != b.d.Repository.Name() && !slices.Contains(from, repo) {
				from = append(from, repo)
			}
		}
	}
	add(b.k.c.uploads.places(b.key))
	if b.d.MountFrom != nil {
		add(b.d.MountFrom(ctx, b.desc.Digest))
	}
	return from
}

// start mounts the blob or uploads it.
func (b *blobCopy) start(ctx context.Context, turn *uploading, from []string) error {
	if len(from) == 0 { // there is nothing to mount: the bytes are needed
		b.r.early(ctx)
	}
	upload, mounted, err := b.d.Repository.Start(oci.WithOperation(ctx, oci.OpUploadStart), b.desc, from)
	if err != nil {
		return fmt.Errorf("start upload: %w", err)
	}
	if mounted {
		b.k.c.uploads.remember(b.key, b.d.Repository.Name())
		b.done(StepBlobMounted, func(r *Result) { r.Mounted++ })
		return nil
	}
	if len(from) > 0 {
		b.k.c.uploads.forget(b.key, from[0])
		b.d.note(func(r *Result) {
			r.RefusedMounts = append(r.RefusedMounts, RefusedMount{from[0], b.desc.Digest})
		})
	}
	if err := b.put(ctx, upload, turn); err != nil {
		b.cancel(ctx, upload, err)
		return err
	}
	b.k.c.uploads.remember(b.key, b.d.Repository.Name())
	b.done(StepBlobDone, func(r *Result) { r.Uploaded++ })
	return nil
}

// put sends the blob, and goes on in the same session after a break where the
// registry says where and the bytes are still at hand.
func (b *blobCopy) put(ctx context.Context, upload oci.Upload, turn *uploading) error {
	var unreported atomic.Int64
	report := func() {
		n := unreported.Swap(0)
		b.d.note(func(r *Result) { r.UploadedBytes += n })
		b.k.step(Progress{Step: StepBlobBytes, Destination: b.d.index, Digest: b.desc.Digest, Bytes: n})
	}
	b.r.ensure()
	body := &body{r: b.r, sent: func(n int) {
		b.place.bytes.Add(int64(n))
		if turn != nil {
			turn.bytes.Add(int64(n))
		}
		if unreported.Add(int64(n)) >= chunkSize {
			report()
		}
	}}
	defer func() {
		body.stop()
		if unreported.Load() > 0 {
			report()
		}
	}()
	last := int64(0)
	for try := 1; ; try++ {
		err := upload.Put(oci.WithOperation(ctx, oci.OpBlobWrite), body)
		if err == nil {
			return nil
		}
		body.stop()
		if failure := body.failure(); failure != nil {
			return failure
		}
		b.ask = b.ask || body.sentAll() // its 201 may have been lost
		if body.outrun() {
			return fmt.Errorf("upload: the blob has to be read again: %w", oci.ErrUploadUnknown)
		}
		if lasting(err) || try >= resumeTries || ctx.Err() != nil || b.ask {
			return fmt.Errorf("upload: %w", err)
		}
		offset, oerr := upload.Offset(oci.WithOperation(ctx, oci.OpBlobWrite))
		if oerr != nil || offset <= last || !body.seek(offset) {
			return fmt.Errorf("upload: %w", err)
		}
		last = offset
	}
}

// cancel ends a session that will not be used.
func (b *blobCopy) cancel(ctx context.Context, upload oci.Upload, why error) {
	if errors.Is(why, oci.ErrUploadUnknown) || errors.Is(why, oci.ErrUnreachable) {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	_ = upload.Cancel(oci.WithOperation(ctx, oci.OpDelete)) // the registry purges what is left
}

// done writes the evidence down.
func (b *blobCopy) done(step Step, count func(*Result)) {
	b.d.mu.Lock()
	b.d.evidence[b.desc.Digest] = struct{}{}
	b.d.result.Landed = append(b.d.result.Landed, b.desc.Digest)
	count(&b.d.result)
	b.d.mu.Unlock()
	b.k.step(Progress{Step: step, Destination: b.d.index, Digest: b.desc.Digest, Bytes: b.desc.Size})
}
