package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxReferrers bounds the referrers of one subject.
	maxReferrers = 10_000
	// apiMemory is how long a registry without a referrers API is not asked again.
	apiMemory = time.Hour
	// listingAge is how old a listing may be when the content is complete: what
	// counts is what the source had then. What comes later is an event of its own.
	listingAge = time.Second
	// earlySize is the size in bytes of a graph's blobs up to which the source is
	// asked while they travel: they will be there before the answer is too old.
	earlySize = 4 << 20
)

// referrerAPIs remembers which registries have no referrers API.
type referrerAPIs struct {
	now func() time.Time

	mu    sync.Mutex
	until map[string]time.Time
	// asking is closed when a registry that was never asked has answered.
	asking map[string]chan struct{}
}

// first has one ask a registry that is not known yet, and the others wait for
// what comes of it. The function it gives back ends the asking.
func (a *referrerAPIs) first(ctx context.Context, identity string) (end func(), err error) {
	a.mu.Lock()
	asking, begun := a.asking[identity]
	if !begun {
		asking = make(chan struct{})
		a.asking[identity] = asking
	}
	a.mu.Unlock()
	if !begun {
		return sync.OnceFunc(func() { close(asking) }), nil
	}
	select {
	case <-asking:
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *referrerAPIs) absent(identity string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now().Before(a.until[identity])
}

func (a *referrerAPIs) remember(identity string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until[identity] = a.now().Add(apiMemory)
}

// A listing is what travels with one subject.
type listing struct {
	subject    digest.Digest
	referrers  []v1.Descriptor
	cut        bool // there were more than maxReferrers
	companions []companion
}

// A companion is what cosign keeps under a tag beside the subject.
type companion struct {
	tag      string
	manifest oci.Manifest
}

func (l listing) empty() bool { return len(l.referrers)+len(l.companions) == 0 && !l.cut }

// A discovery is one look at what the source has by now, for all destinations
// whose content was complete before it began.
type discovery struct {
	started  time.Time
	done     chan struct{}
	listings []listing
	err      error
}

// lookEarly begins to ask what travels with a small graph, beside its blobs;
// the function it gives back ends that.
func (k *copying) lookEarly(ctx context.Context, g *graph) (end func()) {
	var bytes int64
	for _, desc := range g.blobs {
		bytes += desc.Size
	}
	if k.req.Referrers == ReferrersNone || bytes > earlySize {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		_, _ = k.discover(ctx, g) // whoever needs it asks again
	})
	return func() {
		cancel()
		looking.Wait()
	}
}

// discover asks the source what travels with the root: its referrers and
// companion tags, and those of its children where a tag list is at hand. g is
// nil where only the root's digest is known.
func (k *copying) discover(ctx context.Context, g *graph) ([]listing, error) {
	now := k.c.options.Now()
	k.mu.Lock()
	look := k.found
	mine := look == nil || now.Sub(look.started) > listingAge
	if mine {
		look = &discovery{started: now, done: make(chan struct{})}
		k.found = look
	}
	k.mu.Unlock()
	if !mine {
		select {
		case <-look.done:
			return look.listings, look.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	look.listings, look.err = k.look(ctx, g)
	if look.err != nil { // the next one asks again
		k.mu.Lock()
		if k.found == look {
			k.found = nil
		}
		k.mu.Unlock()
	}
	close(look.done)
	return look.listings, look.err
}

func (k *copying) look(ctx context.Context, g *graph) ([]listing, error) {
	root, err := k.list(ctx, k.req.Root.Digest, true, true)
	if err != nil {
		return nil, err
	}
	listings := []listing{root}
	if g != nil && k.req.SourceTags != nil {
		for _, level := range g.levels {
			for _, n := range level {
				below, err := k.list(ctx, n.manifest.Digest, false, false)
				if err != nil {
					return nil, err
				}
				listings = append(listings, below)
			}
		}
	}
	k.step(Progress{Step: StepReferrers, Destination: -1, Digest: k.req.Root.Digest})
	return listings, nil
}

// wants tells whether to ask the source for a companion tag: where a tag list
// is at hand only for those it has, else if it is to be asked blindly.
func (k *copying) wants(tag string, blindly bool) bool {
	if k.req.SourceTags != nil {
		if present, known := k.req.SourceTags(tag); known {
			return present
		}
	}
	return blindly
}

// list asks for one subject. api: the referrers API, or else the fallback tag,
// is asked; cosign: cosign's tags are asked for even without a tag list.
func (k *copying) list(ctx context.Context, subject digest.Digest, api, cosign bool) (listing, error) {
	l := listing{subject: subject}
	group, within := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		if api {
			var supported bool
			l.referrers, l.cut, supported, err = k.c.askAPI(within, k.req.SourceIdentity, k.req.Source, subject)
			if supported || err != nil {
				return asPlainSource(err)
			}
		}
		if tag := oci.FallbackTag(subject); k.wants(tag, api) {
			l.referrers, l.cut, err = askFallback(within, k.req.Source, tag)
		}
		return asPlainSource(err)
	})
	tags := oci.CosignTags(subject)
	found := make([]*companion, len(tags))
	for i, tag := range tags {
		if !k.wants(tag, cosign) {
			continue
		}
		group.Go(func() error {
			m, err := k.req.Source.FetchManifest(oci.WithOperation(within, oci.OpManifestRead), tag)
			if errors.Is(err, oci.ErrNotFound) {
				return nil
			}
			if err != nil {
				return asPlainSource(fmt.Errorf("read companion tag %s: %w", tag, err))
			}
			found[i] = &companion{tag, m}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return listing{}, err
	}
	for _, c := range found {
		if c != nil {
			l.companions = append(l.companions, *c)
		}
	}
	return l, nil
}

// asPlainSource marks an error as the source's, but for absence: a list that
// is not there is no sign of a broken image.
func asPlainSource(err error) error {
	if err == nil {
		return nil
	}
	return &sourceFault{err}
}

// askAPI lists a subject's referrers by the API; supported is false where the
// registry has none.
func (c *Copier) askAPI(ctx context.Context, identity string, repo oci.Repository, subject digest.Digest) (list []v1.Descriptor, cut, supported bool, err error) {
	known, err := c.apis.first(ctx, identity)
	if err != nil {
		return nil, false, false, err
	}
	defer known()
	if c.apis.absent(identity) {
		return nil, false, false, nil
	}
	for desc, err := range repo.Referrers(oci.WithOperation(ctx, oci.OpReferrers), subject) {
		switch {
		case errors.Is(err, oci.ErrUnsupported):
			c.apis.remember(identity)
			return nil, false, false, nil
		case errors.Is(err, oci.ErrNotFound):
			return nil, false, true, nil
		case err != nil:
			return nil, false, true, fmt.Errorf("list referrers of %s: %w", subject, err)
		case len(list) == maxReferrers:
			return list, true, true, nil
		}
		list = append(list, desc)
	}
	return list, false, true, nil
}

// askFallback reads a fallback tag's list; none is an empty one.
func askFallback(ctx context.Context, repo oci.Repository, tag string) (list []v1.Descriptor, cut bool, err error) {
	m, err := repo.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), tag)
	if errors.Is(err, oci.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read fallback tag %s: %w", tag, err)
	}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return nil, false, fmt.Errorf("fallback tag %s: %w", tag, err)
	}
	if len(refs.Manifests) > maxReferrers {
		return refs.Manifests[:maxReferrers], true, nil
	}
	return refs.Manifests, false, nil
}
