package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxReferrerDepth bounds referrers of referrers.
	maxReferrerDepth = 4
	// referrersAtOnce is how many referrers go to one destination side by side.
	referrersAtOnce = 4
)

// A followup is the referrers' part of a copy to one destination.
type followup struct {
	k *copying
	d *dest
	// until is how long passing failures are tried.
	until time.Time
	// strict: a passing failure is an error, since nothing else waits for it.
	strict bool
	// careful: what the destination has already is left alone.
	careful bool
}

// follow brings a copied root's referrers to a destination, the root itself
// before them.
func (k *copying) follow(ctx context.Context, d *dest, g *graph) error {
	f := &followup{k: k, d: d, until: k.c.options.Now().Add(k.c.options.ReferrerPatience)}
	var listings []listing
	err := f.patiently(ctx, func() (err error) {
		listings, err = k.discover(ctx, g)
		return err
	})
	if err != nil {
		return f.lost(ctx, k.req.Root.Digest, err)
	}
	for _, l := range listings {
		if l.empty() {
			continue
		}
		if err := k.pushRoot(ctx, d, g.root); err != nil {
			return err
		}
		if err := f.bring(ctx, l, nil, 1); err != nil {
			return err
		}
	}
	return nil
}

// referrersTo brings a subject's referrers to one destination that has it.
func (k *copying) referrersTo(ctx context.Context, d *dest) error {
	subject := k.req.Root.Digest
	if err := oci.CheckDigest(subject); err != nil {
		return err
	}
	if _, err := d.Repository.Resolve(oci.WithOperation(ctx, oci.OpManifestHead), subject.String()); err != nil {
		if errors.Is(err, oci.ErrNotFound) {
			d.note(func(r *Result) { r.SubjectMissing = true })
			return nil
		}
		return fmt.Errorf("ask for subject %s: %w", subject, err)
	}
	f := &followup{k: k, d: d, strict: true, careful: !k.req.Full}
	listings, err := k.discover(ctx, nil)
	if err != nil {
		return f.lost(ctx, subject, err)
	}
	for _, l := range listings {
		var present map[digest.Digest]bool
		if f.careful && len(l.referrers) > 0 {
			if present, err = f.present(ctx, l.subject); err != nil {
				return fmt.Errorf("list referrers at the destination: %w", err)
			}
		}
		if err := f.bring(ctx, l, present, 1); err != nil {
			return err
		}
	}
	return nil
}

// present is what the destination lists already.
func (f *followup) present(ctx context.Context, subject digest.Digest) (map[digest.Digest]bool, error) {
	list, _, supported, err := f.k.c.askAPI(ctx, f.d.Identity, f.d.Repository, subject)
	if err != nil {
		return nil, err
	}
	if !supported {
		if list, _, err = askFallback(ctx, f.d.Repository, oci.FallbackTag(subject)); err != nil && !lasting(err) {
			return nil, err
		}
	}
	present := make(map[digest.Digest]bool, len(list))
	for _, desc := range list {
		present[desc.Digest] = true
	}
	return present, nil
}

// bring copies what travels with one subject, then lists it at the destination
// where that does not do so by itself, then what travels with the referrers.
func (f *followup) bring(ctx context.Context, l listing, present map[digest.Digest]bool, depth int) error {
	if l.cut {
		err := fmt.Errorf("%s has more than %d referrers: %w", l.subject, maxReferrers, oci.ErrTooLarge)
		if err := f.lost(ctx, l.subject, err); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var pushed, unlisted, sboms []*node
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(referrersAtOnce)
	for _, desc := range l.referrers {
		if present[desc.Digest] {
			f.keep(desc)
			continue
		}
		group.Go(func() error {
			var n *node
			handled := false
			err := f.patiently(within, func() (err error) {
				n, handled, err = f.referrer(within, l.subject, desc)
				return err
			})
			if err != nil {
				return f.lost(within, desc.Digest, fmt.Errorf("referrer %s of %s: %w", desc.Digest, l.subject, err))
			}
			mu.Lock()
			defer mu.Unlock()
			pushed = append(pushed, n)
			if !handled {
				unlisted = append(unlisted, n)
			}
			return nil
		})
	}
	for _, c := range l.companions {
		group.Go(func() error {
			var n *node
			err := f.patiently(within, func() (err error) {
				n, err = f.companion(within, c)
				return err
			})
			if err != nil {
				return f.lost(within, c.manifest.Digest, fmt.Errorf("companion tag %s: %w", c.tag, err))
			}
			if n != nil && strings.HasSuffix(c.tag, ".sbom") {
				mu.Lock()
				defer mu.Unlock()
				sboms = append(sboms, n)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := f.listAmong(ctx, l.subject, unlisted); err != nil {
		return err
	}
	for _, n := range pushed {
		f.keep(n.manifest.Descriptor())
	}
	if err := f.deeper(ctx, pushed, false, depth); err != nil {
		return err
	}
	return f.deeper(ctx, sboms, true, depth)
}

// deeper brings the referrers of referrers; cosign signs its SBOMs by a tag.
func (f *followup) deeper(ctx context.Context, pushed []*node, cosign bool, depth int) error {
	below := make([]listing, len(pushed))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(referrersAtOnce)
	for i, n := range pushed {
		group.Go(func() error {
			err := f.patiently(within, func() (err error) {
				below[i], err = f.k.list(within, n.manifest.Digest, !cosign, cosign)
				return err
			})
			if err != nil {
				below[i] = listing{}
				return f.lost(within, n.manifest.Digest, err)
			}
			f.k.step(Progress{Step: StepReferrers, Destination: f.d.index, Digest: n.manifest.Digest})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, n := range pushed {
		var err error
		switch {
		case below[i].empty():
		case depth >= maxReferrerDepth:
			err = f.lost(ctx, n.manifest.Digest, fmt.Errorf("referrers of referrers nest deeper than %d: %w", maxReferrerDepth, oci.ErrInvalid))
		default:
			err = f.bring(ctx, below[i], nil, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listAmong keeps the destination's fallback tag for referrers it holds.
func (f *followup) listAmong(ctx context.Context, subject digest.Digest, referrers []*node) error {
	if len(referrers) == 0 {
		return nil
	}
	err := f.patiently(ctx, func() error {
		written, err := f.k.c.keepFallback(ctx, f.d.Destination, subject, referrers)
		f.d.note(func(r *Result) { r.ManifestBytes += written })
		return err
	})
	if err != nil {
		return f.lost(ctx, subject, fmt.Errorf("fallback tag of %s: %w", subject, err))
	}
	return nil
}

// referrer copies one referrer's graph; handled tells whether the destination
// lists it by itself.
func (f *followup) referrer(ctx context.Context, subject digest.Digest, desc v1.Descriptor) (n *node, handled bool, err error) {
	if n, err = f.k.manifest(ctx, desc); err != nil {
		return nil, false, err
	}
	if n.refs.Subject == nil || n.refs.Subject.Digest != subject {
		return nil, false, asSource(fmt.Errorf("it is listed, but its subject is another: %w", oci.ErrInvalid))
	}
	if err := f.below(ctx, n.manifest); err != nil {
		return nil, false, err
	}
	handled, err = f.k.push(ctx, f.d, n.manifest.Digest.String(), n)
	return n, handled, err
}

// below brings what is below a referrer's root.
func (f *followup) below(ctx context.Context, root oci.Manifest) error {
	g, err := f.k.load(ctx, root)
	if err != nil {
		return err
	}
	f.k.expectOnce(root.Digest, g.blobs)
	return f.k.content(ctx, f.d, g)
}

// companion copies a companion tag's graph and moves the tag there; the node is
// nil where the destination's tag stays as it is.
func (f *followup) companion(ctx context.Context, c companion) (*node, error) {
	if !matches(c.manifest) {
		return nil, asSource(fmt.Errorf("read manifest %s: %w", c.manifest.Digest, oci.ErrMismatch))
	}
	n, err := parse(c.manifest)
	if err != nil {
		return nil, asSource(err)
	}
	if f.careful || f.k.req.Merge {
		done, err := f.settled(ctx, c, n)
		if err != nil || done {
			return nil, err
		}
	}
	if err := f.below(ctx, c.manifest); err != nil {
		return nil, err
	}
	handled, err := f.k.push(ctx, f.d, c.tag, n)
	if err != nil {
		return nil, err
	}
	f.keep(c.manifest.Descriptor())
	if !handled {
		return n, f.listAmong(ctx, n.refs.Subject.Digest, []*node{n})
	}
	return n, nil
}

// settled tells whether the destination's companion tag is to stay as it is:
// it names the same already or, where both ends feed each other, it has what
// the source has and more, or has gone another way.
func (f *followup) settled(ctx context.Context, c companion, n *node) (bool, error) {
	there, err := f.d.Repository.Resolve(oci.WithOperation(ctx, oci.OpManifestHead), c.tag)
	switch {
	case errors.Is(err, oci.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case there.Digest == c.manifest.Digest && f.careful:
		f.keep(c.manifest.Descriptor())
		return true, nil
	case there.Digest == c.manifest.Digest || !f.k.req.Merge:
		return false, nil
	}
	m, err := f.d.Repository.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), c.tag)
	if err != nil {
		return false, err
	}
	theirs, err := parse(m)
	if err != nil {
		return false, err
	}
	switch {
	case covers(n, theirs): // cosign appends: the source has grown
		return false, nil
	case covers(theirs, n):
		return true, nil
	}
	f.d.find(replicator.Finding{
		Kind: replicator.FindingConflict, Digest: c.manifest.Digest,
		Message: fmt.Sprintf("companion tag %s names %s at the source and %s at the destination, and neither has all the other has: both are kept", c.tag, c.manifest.Digest, there.Digest),
		Hint:    "sign again at one side on top of the other's signatures, or delete the tag that is not wanted",
	})
	return true, nil
}

// covers tells whether a has every layer that b has.
func covers(a, b *node) bool {
	has := make(map[digest.Digest]bool, len(a.blobs))
	for _, desc := range a.blobs {
		has[desc.Digest] = true
	}
	for _, desc := range b.refs.Blobs {
		if !has[desc.Digest] && !isConfig(b, desc) {
			return false
		}
	}
	return true
}

// isConfig: cosign's config lists the layers, so it differs wherever they do.
func isConfig(n *node, desc v1.Descriptor) bool {
	return len(n.refs.Blobs) > 0 && n.refs.Blobs[0].Digest == desc.Digest && configType(n.manifest) == desc.MediaType
}

// keep counts a root among the referrers that are at the destination.
func (f *followup) keep(desc v1.Descriptor) {
	f.d.note(func(r *Result) {
		if _, known := f.d.kept[desc.Digest]; known {
			return
		}
		if f.d.kept == nil {
			f.d.kept = make(map[digest.Digest]struct{})
		}
		f.d.kept[desc.Digest] = struct{}{}
		r.Referrers = append(r.Referrers, desc)
	})
}

// patiently tries what fails for a passing cause until patience ends.
func (f *followup) patiently(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		if err == nil || lasting(err) || ctx.Err() != nil || !f.k.c.options.Now().Before(f.until) {
			return err
		}
		f.k.step(Progress{Step: StepWaiting, Destination: f.d.index, Digest: f.k.req.Root.Digest})
		if err := pause(ctx, n); err != nil {
			return err
		}
	}
}

// lost decides what a referrer that could not be copied means: a finding, or
// the copy's error.
func (f *followup) lost(ctx context.Context, about digest.Digest, err error) error {
	if ctx.Err() != nil || f.k.req.Referrers == ReferrersRequire || f.strict && !lasting(err) {
		return err
	}
	f.d.find(replicator.Finding{
		Kind: replicator.FindingReferrers, Digest: about,
		Message: "not copied: " + err.Error(),
		Hint:    "the image itself is not held up by this; look at the error, then run sync again",
	})
	return nil
}
