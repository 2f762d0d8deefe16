package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// pushersPerLevel is how many manifests of one copy are pushed side by side.
const pushersPerLevel = 16

// copyTo brings the graph to one destination.
func (k *copying) copyTo(ctx context.Context, d *dest, g *graph) error {
	if err := k.content(ctx, d, g); err != nil {
		return err
	}
	if !k.req.Tagged {
		if err := k.pushRoot(ctx, d, g.root); err != nil {
			return err
		}
	}
	if k.req.Referrers == ReferrersNone {
		return nil
	}
	return k.follow(ctx, d, g)
}

// content brings all below a graph's root to a destination.
func (k *copying) content(ctx context.Context, d *dest, g *graph) error {
	var bytes int64
	for _, desc := range g.blobs {
		bytes += desc.Size
	}
	k.step(Progress{Step: StepPlanned, Destination: d.index, Digest: g.root.manifest.Digest, Bytes: bytes})
	if err := k.blobs(ctx, d, g.blobs); err != nil {
		return err
	}
	for _, level := range g.levels {
		group, within := errgroup.WithContext(ctx)
		group.SetLimit(pushersPerLevel)
		for _, n := range level {
			group.Go(func() error {
				handled, err := k.push(within, d, n.manifest.Digest.String(), n)
				if err != nil || handled {
					return err
				}
				return k.listed(within, d, n)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	if g.foreign {
		d.find(replicator.Finding{
			Kind: replicator.FindingForeignLayer, Digest: g.root.manifest.Digest,
			Message: fmt.Sprintf("%s has layers that are not to be distributed: they are named there, but not copied", g.root.manifest.Digest),
			Hint:    "whoever pulls it fetches these layers from the URLs the image names",
		})
	}
	return nil
}

// pushRoot pushes the request's root by its digest, once.
func (k *copying) pushRoot(ctx context.Context, d *dest, root *node) error {
	d.mu.Lock()
	pushed := d.result.RootPushed
	d.mu.Unlock()
	if pushed {
		return nil
	}
	handled, err := k.push(ctx, d, root.manifest.Digest.String(), root)
	if err != nil {
		return err
	}
	d.note(func(r *Result) { r.RootPushed = true })
	if handled {
		return nil
	}
	return k.listed(ctx, d, root)
}

// listed has a manifest that is part of a graph, and refers to something,
// found among the referrers of that.
func (k *copying) listed(ctx context.Context, d *dest, n *node) error {
	f := &followup{k: k, d: d, until: k.c.options.Now().Add(k.c.options.ReferrerPatience)}
	return f.listAmong(ctx, n.refs.Subject.Digest, []*node{n})
}

// push puts one manifest. handled: it has no subject, or the registry lists it
// among its subject's referrers by itself; otherwise the fallback tag is the
// caller's to keep.
func (k *copying) push(ctx context.Context, d *dest, reference string, n *node) (handled bool, err error) {
	handled, err = k.c.push(ctx, d.Destination, reference, n)
	if err != nil {
		return false, err
	}
	d.note(func(r *Result) { r.ManifestBytes += int64(len(n.manifest.Bytes)) })
	k.step(Progress{Step: StepManifestPushed, Destination: d.index, Digest: n.manifest.Digest, Bytes: int64(len(n.manifest.Bytes))})
	return handled, nil
}

// push puts one manifest at a destination.
func (c *Copier) push(ctx context.Context, dst Destination, reference string, n *node) (handled bool, err error) {
	pushed, err := dst.Repository.PushManifest(oci.WithOperation(ctx, oci.OpManifestWrite), reference, n.manifest)
	if err != nil {
		if errors.Is(err, oci.ErrBlobUnknown) || errors.Is(err, oci.ErrRepositoryUnknown) {
			c.uploads.forgetRepository(dst.Identity, dst.Repository.Name())
		}
		return false, fmt.Errorf("push manifest %s: %w", n.manifest.Digest, err)
	}
	return pushed.SubjectHandled || n.refs.Subject == nil, nil
}

// Tag moves a tag to a root whose content a Copy has brought there: one PUT of
// the manifest, verbatim. Where the root has a subject and the registry does
// not list referrers by itself, its subject's fallback tag is kept too.
func (c *Copier) Tag(ctx context.Context, dst Destination, tag string, root oci.Manifest) error {
	if err := oci.CheckTag(tag); err != nil {
		return err
	}
	if !matches(root) {
		return fmt.Errorf("tag %s: root %s: %w", tag, root.Digest, oci.ErrMismatch)
	}
	n, err := parse(root)
	if err != nil {
		return err
	}
	handled, err := c.push(ctx, dst, tag, n)
	if err != nil || handled {
		return err
	}
	if _, err := c.keepFallback(ctx, dst, n.refs.Subject.Digest, []*node{n}); err != nil {
		return fmt.Errorf("list %s among the referrers of %s: %w", root.Digest, n.refs.Subject.Digest, err)
	}
	return nil
}

// fail ends a destination with an error, and the finding it gives.
func (d *dest) fail(root digest.Digest, err error) {
	if f, ok := findingOf(err); ok {
		if f.Digest == "" {
			f.Digest = root
		}
		d.find(f)
	}
	d.note(func(r *Result) { r.Err = err })
}

// find tells a finding, once.
func (d *dest) find(f replicator.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, known := range d.result.Findings {
		if known.Kind == f.Kind && known.Digest == f.Digest {
			return
		}
	}
	d.result.Findings = append(d.result.Findings, f)
}

// findingOf is what a person should know of an error.
func findingOf(err error) (replicator.Finding, bool) {
	var fault *sourceFault
	source := errors.As(err, &fault)
	f := replicator.Finding{Message: err.Error()}
	switch {
	case source && errors.Is(err, oci.ErrSourceIncomplete):
		f.Kind = replicator.FindingSourceIncomplete
		f.Hint = "push the image to the source again, or restore what it lacks"
	case source && errors.Is(err, oci.ErrMismatch):
		f.Kind = replicator.FindingMismatch
		f.Hint = "the source's content is damaged: delete it at the source's storage and push it again"
	case source && errors.Is(err, oci.ErrUnsupported):
		f.Kind = replicator.FindingUnsupported
		f.Hint = "pull the image and push it in a current format: nothing is converted on its way"
	case !source && errors.Is(err, oci.ErrUnsupported):
		f.Kind = replicator.FindingUnsupported
		f.Hint = "the destination does not take such content: nothing is converted on its way"
	default:
		return f, false
	}
	f.Digest = digestIn(err)
	return f, true
}

// A digestError names the content an error is about.
type digestError struct {
	digest digest.Digest
	err    error
}

func (e *digestError) Error() string { return e.err.Error() }
func (e *digestError) Unwrap() error { return e.err }

func digestIn(err error) digest.Digest {
	var about *digestError
	if errors.As(err, &about) {
		return about.digest
	}
	return ""
}
