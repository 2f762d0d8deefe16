// Package transfer copies one graph of content from a source repository to any
// number of destinations: blobs, then children, then the root, then its
// referrers, the tag last and only when told to. Every byte is hashed on its
// way. It vouches for nothing: verify reads the destination for itself.
package transfer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Options make a Copier; the zero value has every default.
type Options struct {
	// SpoolDir holds the spool files and nothing else: files of ours that are
	// found there are removed when it is first used. Empty: no spool, and a
	// destination that cannot keep up drops out.
	SpoolDir string
	// SpoolMax bounds the spool in bytes (default 10 GiB). Besides, 1 GiB or
	// 10 % of its filesystem, whichever is less, is left free.
	SpoolMax int64
	// Memory bounds the bytes of blobs on their way through the process
	// (default 48 MiB), in chunks of 256 KiB.
	Memory int64
	// BlobConcurrency is how many blobs of one copy go to one destination side
	// by side (default 8); the registries' own limits come on top.
	BlobConcurrency int
	// ReferrerPatience is how long referrers that fail for a passing cause are
	// tried (default 60 s), per copy and destination.
	ReferrerPatience time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// A Copier copies graphs. One serves all jobs of a process: it owns what they
// share, which is the uploads and blob reads under way and their memory. Its
// methods are safe for concurrent use.
type Copier struct {
	options Options
	uploads uploads
	reads   reads
	locks   keyedLocks
	apis    referrerAPIs
	// manifestBytes are held by copies under way.
	manifestBytes atomic.Int64
}

// New makes a Copier; nothing runs and nothing is read yet.
func New(o Options) *Copier {
	if o.SpoolMax == 0 {
		o.SpoolMax = 10 << 30
	}
	if o.Memory == 0 {
		o.Memory = 48 << 20
	}
	if o.BlobConcurrency == 0 {
		o.BlobConcurrency = 8
	}
	if o.ReferrerPatience == 0 {
		o.ReferrerPatience = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Copier{options: o}
	c.uploads.now = o.Now
	c.uploads.running = make(map[any]*uploading)
	c.reads.flights = make(map[readKey]*flight)
	c.reads.idle = make(map[*flight]struct{})
	c.reads.first = make(map[string]time.Duration)
	c.reads.pool = newPool(int(max(o.Memory/chunkSize, smallChunks)))
	c.reads.spool = &spool{dir: o.SpoolDir, max: o.SpoolMax}
	c.locks.held = make(map[string]*keyedLock)
	c.apis = referrerAPIs{now: o.Now, until: make(map[string]time.Time), asking: make(map[string]chan struct{})}
	return c
}

// Doubt has nothing believed of what a destination's repository holds: it was
// found to lack something.
func (c *Copier) Doubt(identity, repository string) {
	c.uploads.forgetRepository(identity, repository)
}

// SpoolBytes is how much the spool holds now.
func (c *Copier) SpoolBytes() int64 { return c.reads.spool.used.Load() }

// A ReferrersMode says what becomes of a root's referrers.
type ReferrersMode int

// The modes.
const (
	// ReferrersNone leaves referrers and companion tags alone.
	ReferrersNone ReferrersMode = iota
	// ReferrersFollow copies them; those that cannot be copied are findings.
	ReferrersFollow
	// ReferrersRequire copies them; one that cannot be copied is the copy's error.
	ReferrersRequire
)

// A Request is one root to bring to destinations.
type Request struct {
	// SourceIdentity is the identity of the registry Source belongs to.
	SourceIdentity string
	Source         oci.Repository
	// Root has been read and hashed. CopyReferrers needs only its Digest.
	Root oci.Manifest
	// Tagged: a tag is going to be moved to the root by Tag. Without referrers
	// the root itself is then left to Tag.
	Tagged       bool
	Destinations []Destination
	Referrers    ReferrersMode
	// Merge: the destinations feed the source too. A companion tag that exists
	// at both and has gone different ways is then kept as it is, with a finding.
	Merge bool
	// Full: what is at the destination already is not believed: CopyReferrers
	// copies referrers that the destination lists, too.
	Full bool
	// SourceTags tells whether the source repository has a tag, where a tag
	// list is at hand (known); nil: there is none. With it no companion tag is
	// asked for in vain.
	SourceTags func(tag string) (present, known bool)
	// Progress is told every step, from many goroutines: it must be quick.
	Progress func(Progress)
	// Finished is told each destination's result as soon as that destination
	// is done, from a goroutine of its own; nil: only Copy's return tells.
	Finished func(i int, r Result)
}

// A Destination is one repository to copy to.
type Destination struct {
	// Identity is the registry's identity: uploads are shared below it.
	Identity   string
	Repository oci.Repository
	// MountFrom hints at other repositories of the registry that hold a blob.
	MountFrom func(ctx context.Context, d digest.Digest) []string
	// Present hints that the repository holds a blob: it is asked for (HEAD)
	// before anything is sent.
	Present func(ctx context.Context, d digest.Digest) bool
}

// A Step is one kind of progress.
type Step string

// The steps.
const (
	StepManifestRead   Step = "manifest-read"   // from the source
	StepPlanned        Step = "planned"         // Bytes: of a graph's distinct blobs, per destination
	StepBlobBytes      Step = "blob-bytes"      // Bytes more went to the destination
	StepBlobDone       Step = "blob-done"       // uploaded; Bytes: its size
	StepBlobMounted    Step = "blob-mounted"    // Bytes: its size
	StepBlobPresent    Step = "blob-present"    // Bytes: its size
	StepManifestPushed Step = "manifest-pushed" // Bytes: its size
	StepReferrers      Step = "referrers"       // the source told its referrers
	StepWaiting        Step = "waiting"         // for an upload of another copy that moves on, or before another try
)

// A Progress is one step of a copy.
type Progress struct {
	Step Step
	// Destination is the index into the request's, -1 for the source.
	Destination int
	Digest      digest.Digest
	Bytes       int64
}

// A Result is what became of one destination.
type Result struct {
	// Err is nil when everything is there but the tag (and the root, see Tagged).
	Err error
	// Findings lack route, registry, repository and tag: the caller knows them.
	Findings []replicator.Finding
	// Landed are blobs that are surely in the repository now.
	Landed []digest.Digest
	// RefusedMounts are hints of MountFrom that were wrong.
	RefusedMounts []RefusedMount
	// RootPushed: the root is there by its digest.
	RootPushed bool
	// SubjectMissing: CopyReferrers found no such subject there and copied nothing.
	SubjectMissing bool
	// Referrers are the roots of all referrers and companion tags that are
	// there now, to be proven with the root.
	Referrers []v1.Descriptor
	// ReadBytes came from the source on behalf of this destination: a read
	// that several share is counted at the first.
	ReadBytes int64
	// UploadedBytes are of blobs, those sent again counted again.
	UploadedBytes int64
	ManifestBytes int64
	Mounted       int
	Uploaded      int
	Present       int
}

// A RefusedMount is a repository that was said to hold a blob and could not lend it.
type RefusedMount struct {
	Repository string
	Digest     digest.Digest
}

// Copy brings the root's graph to every destination, in the order blobs,
// children, root, referrers; one result per destination. A destination that
// fails or lags neither holds nor fails another.
func (c *Copier) Copy(ctx context.Context, req Request) []Result {
	k := newCopying(c, req)
	defer k.close()
	graph, err := k.load(ctx, req.Root)
	if err == nil {
		k.expect(graph.blobs)
		defer k.lookEarly(ctx, graph)()
	}
	k.each(ctx, func(ctx context.Context, d *dest) error {
		if err != nil {
			return err
		}
		return k.copyTo(ctx, d, graph)
	})
	return k.results()
}

// CopyReferrers brings the referrers and companion tags of a subject (the
// request's Root) to the destinations that have the subject; those they list
// already are left alone unless the request is Full.
func (c *Copier) CopyReferrers(ctx context.Context, req Request) []Result {
	if req.Referrers == ReferrersNone {
		req.Referrers = ReferrersFollow
	}
	k := newCopying(c, req)
	defer k.close()
	k.each(ctx, k.referrersTo)
	return k.results()
}

// newCopying prepares one call.
func newCopying(c *Copier, req Request) *copying {
	k := &copying{c: c, req: req, loaded: make(map[digest.Digest]*load), expected: make(map[digest.Digest]bool)}
	for i, destination := range req.Destinations {
		k.dests = append(k.dests, &dest{
			Destination: destination, index: i,
			evidence: make(map[digest.Digest]struct{}), readers: make(map[digest.Digest]*reader),
		})
	}
	return k
}

// A copying is one call of Copy or CopyReferrers.
type copying struct {
	c     *Copier
	req   Request
	dests []*dest

	mu sync.Mutex
	// loaded are the source's manifests, each read once.
	loaded map[digest.Digest]*load
	held   int64 // bytes of them
	// expected are the referrers whose blobs the destinations were told of.
	expected map[digest.Digest]bool
	found    *discovery
}

// A dest is one destination of a copying.
type dest struct {
	Destination
	index int

	mu       sync.Mutex
	result   Result
	evidence map[digest.Digest]struct{} // blobs with evidence of this copy
	readers  map[digest.Digest]*reader  // places kept in reads to come
	kept     map[digest.Digest]struct{} // of result.Referrers
	over     bool
}

// each runs one destination's work beside the others'.
func (k *copying) each(ctx context.Context, f func(context.Context, *dest) error) {
	var all sync.WaitGroup
	for _, d := range k.dests {
		all.Go(func() {
			err := f(ctx, d)
			d.leaveAll()
			if err != nil {
				d.fail(k.req.Root.Digest, err)
			}
			if k.req.Finished != nil {
				k.req.Finished(d.index, d.outcome())
			}
		})
	}
	all.Wait()
}

func (k *copying) results() []Result {
	results := make([]Result, len(k.dests))
	for i, d := range k.dests {
		results[i] = d.outcome()
	}
	return results
}

func (k *copying) close() {
	for _, d := range k.dests {
		d.leaveAll()
	}
	k.c.manifestBytes.Add(-k.held)
}

func (k *copying) step(p Progress) {
	if k.req.Progress != nil {
		k.req.Progress(p)
	}
}

func (d *dest) outcome() Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.result
}

// note changes the destination's result.
func (d *dest) note(f func(*Result)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.result)
}
