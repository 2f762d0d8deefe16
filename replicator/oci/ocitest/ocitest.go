// Package ocitest is a strict registry in memory, behind the contracts of oci,
// for the tests of the rooms above: it refuses wrong digests, manifests whose
// blobs or children are absent and sizes that do not fit; it counts and records
// every request, and its hooks fail, delay, cut, corrupt or watch any of them.
//
//	eu := ocitest.New("oci://eu", ocitest.Options{})
//	image := ocitest.Image("app", 3)
//	eu.Push("team/app", "v1", image)              // seeded, not counted
//	eu.OnCall(func(ctx context.Context, c ocitest.Call) error { … })
//	repo := eu.Repository("team/app")             // an oci.Repository
//	eu.Count(ocitest.PutManifest)
package ocitest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// Options are what a registry can and cannot do; the zero value is like CNCF
// distribution: mounts and ranges, no referrers API, broken uploads forgotten.
type Options struct {
	// ReferrersAPI: the referrers API answers, and pushes of a manifest with a
	// subject say so.
	ReferrersAPI bool
	// Resumable: the part of a broken upload is kept, Upload.Offset tells it
	// and the next Put goes on there.
	Resumable bool
	// NoMount: every mount becomes an upload session.
	NoMount bool
	// NoRanges: FetchRange gives ErrUnsupported.
	NoRanges bool
	// NoSizes: Stat gives -1.
	NoSizes bool
	// ListDigests: the tag listing tells digests (and times, where Now is set).
	ListDigests bool
	// Unlistable: there is no catalog.
	Unlistable bool
	// Immutable tags may not be moved.
	Immutable func(tag string) bool
	// NoDeletes: no tag is removed (ErrUnsupported).
	NoDeletes bool
	// DropsUntagged: a manifest goes with the last of its tags.
	DropsUntagged bool
	// DropsOthers: a tag goes with all other tags of its manifest, and with it,
	// whatever DropsUntagged says.
	DropsOthers bool
	// DiscardAbove: of uploaded blobs larger than this only digest and size
	// are kept; 0 keeps all.
	DiscardAbove int64
	// Now stamps pushes, for listings that tell times.
	Now func() time.Time
}

// A Method is one kind of request.
type Method string

// The kinds of request.
const (
	Ping         Method = "ping"
	Catalog      Method = "catalog"
	HeadManifest Method = "head-manifest"
	GetManifest  Method = "get-manifest"
	PutManifest  Method = "put-manifest"
	HeadBlob     Method = "head-blob"
	GetBlob      Method = "get-blob"
	StartUpload  Method = "start-upload" // POST, with or without a mount
	PutUpload    Method = "put-upload"
	GetUpload    Method = "get-upload" // the session's offset
	DeleteUpload Method = "delete-upload"
	ListTags     Method = "list-tags"
	Referrers    Method = "referrers"
	DeleteTag    Method = "delete-tag"
)

// A Call is one request.
type Call struct {
	Method     Method
	Repository string
	// Reference is the tag or digest asked for, as it was asked.
	Reference string
	// From is the mount's source, Offset where a blob's read begins.
	From   string
	Offset int64
	// Background tells whether it was marked as of the sweep or backfill lane.
	Background bool
	// In After hooks and Calls: how it ended.
	Err     error
	Mounted bool
}

// String is a call in one line: `put-manifest team/app v1`.
func (c Call) String() string {
	return fmt.Sprintf("%s %s %s", c.Method, c.Repository, c.Reference)
}

type blob struct {
	data []byte
	size int64
	open func(offset int64) io.Reader // instead of data; nil data and open: discarded
}

type tagged struct {
	digest   digest.Digest
	pushedAt time.Time
}

type repository struct {
	blobs     map[digest.Digest]blob
	manifests map[digest.Digest]oci.Manifest
	tags      map[string]tagged
}

// A Registry is a registry in memory.
type Registry struct {
	identity string
	options  Options

	mu           sync.Mutex
	repositories map[string]*repository
	subjects     map[digest.Digest]digest.Digest // of manifests, as far as they were asked for
	calls        []*Call
	sessions     int
	onCall       func(context.Context, Call) error
	onDone       func(Call)
	onRead       func(Call, io.Reader) io.Reader
	onWrite      func(Call, io.Reader) io.Reader
}

// New makes an empty registry.
func New(identity string, options Options) *Registry {
	return &Registry{identity: identity, options: options, repositories: make(map[string]*repository), subjects: make(map[digest.Digest]digest.Digest)}
}

// OnCall is asked before each request: its error is the answer, and it may wait
// (for ctx too) to delay one. nil removes it.
func (r *Registry) OnCall(hook func(ctx context.Context, c Call) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onCall = hook
}

// OnDone watches each request's end, with its outcome. It may look at the
// registry, and is called before the requester sees the answer.
func (r *Registry) OnDone(hook func(Call)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onDone = hook
}

// OnRead may change what a blob read gives: cut, corrupt or throttle it.
func (r *Registry) OnRead(hook func(Call, io.Reader) io.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRead = hook
}

// OnWrite may change what an upload's body brings. An error of its reader is a
// broken connection (ErrInterrupted).
func (r *Registry) OnWrite(hook func(Call, io.Reader) io.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onWrite = hook
}

// Calls are all requests so far, in the order they began.
func (r *Registry) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := make([]Call, len(r.calls))
	for i, c := range r.calls {
		calls[i] = *c
	}
	return calls
}

// Count tells how many requests of these methods (none: of any) there were.
func (r *Registry) Count(methods ...Method) int {
	n := 0
	for _, c := range r.Calls() {
		if len(methods) == 0 || slices.Contains(methods, c.Method) {
			n++
		}
	}
	return n
}

// ResetCalls forgets the requests recorded so far.
func (r *Registry) ResetCalls() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = nil
}

// Identity implements oci.Registry.
func (r *Registry) Identity() string { return r.identity }

// Ping implements oci.Registry.
func (r *Registry) Ping(ctx context.Context) error {
	_, err := begin(ctx, r, Call{Method: Ping})
	return err
}

// Repositories implements oci.Registry.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		done, err := begin(ctx, r, Call{Method: Catalog})
		if err == nil && r.options.Unlistable {
			err = fmt.Errorf("%s: catalog: %w", r.identity, oci.ErrUnlistable)
			done(err, false)
		}
		if err != nil {
			yield("", err)
			return
		}
		done(nil, false)
		r.mu.Lock()
		var names []string
		for name := range r.repositories {
			names = append(names, name)
		}
		r.mu.Unlock()
		sort.Strings(names)
		for _, name := range names {
			if !yield(name, nil) {
				return
			}
		}
	}
}

// Repository implements oci.Registry; what it gives is also an oci.RangeFetcher.
func (r *Registry) Repository(name string) oci.Repository { return &repo{r: r, name: name} }

// begin records a request and asks the hook; done tells how it ended.
func begin(ctx context.Context, r *Registry, c Call) (done func(err error, mounted bool), err error) {
	c.Background = oci.IsBackground(ctx)
	r.mu.Lock()
	record := new(Call)
	*record = c
	r.calls = append(r.calls, record)
	hook := r.onCall
	r.mu.Unlock()
	done = func(err error, mounted bool) {
		c.Err, c.Mounted = err, mounted
		r.mu.Lock()
		record.Err, record.Mounted = err, mounted
		hook := r.onDone
		r.mu.Unlock()
		if hook != nil {
			hook(c)
		}
	}
	if hook != nil {
		err = hook(ctx, c)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		done(err, false)
	}
	return done, err
}
