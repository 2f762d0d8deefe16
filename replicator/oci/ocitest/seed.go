package ocitest

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// What is below changes and reads the registry from behind: no request is
// counted, no hook asked, nothing checked.

func (r *Registry) now() time.Time {
	if r.options.Now == nil {
		return time.Time{}
	}
	return r.options.Now().UTC()
}

// create makes a repository; the lock is held.
func (r *Registry) create(name string) *repository {
	if r.repositories[name] == nil {
		r.repositories[name] = &repository{
			blobs:     make(map[digest.Digest]blob),
			manifests: make(map[digest.Digest]oci.Manifest),
			tags:      make(map[string]tagged),
		}
	}
	return r.repositories[name]
}

// Push stores everything of c; a tag that is not empty is moved to its root.
func (r *Registry) Push(repository, tag string, c Content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rp := r.create(repository)
	for _, b := range c.Blobs {
		rp.blobs[b.Desc.Digest] = blob{data: b.Data, size: int64(len(b.Data))}
	}
	for _, m := range c.Manifests {
		rp.manifests[m.Digest] = m
	}
	if tag != "" {
		rp.tags[tag] = tagged{c.Root().Digest, r.now()}
	}
}

// Attach pushes an artifact with a subject by digest, and keeps the subject's
// fallback tag where there is no referrers API.
func (r *Registry) Attach(repository string, c Content) {
	r.Push(repository, "", c)
	refs, err := oci.ParseReferences(c.Root())
	if err != nil || refs.Subject == nil || r.options.ReferrersAPI {
		return
	}
	tag := oci.FallbackTag(refs.Subject.Digest)
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	if old, ok := r.Manifest(repository, tag); ok {
		_ = json.Unmarshal(old.Bytes, &index)
	}
	index.Manifests = append(index.Manifests, ReferrerDescriptor(c.Root()))
	r.Push(repository, tag, Content{Manifests: []oci.Manifest{manifestOf(v1.MediaTypeImageIndex, index)}})
}

// AddBlob stores a blob that is made while it is read: open gives its bytes
// from an offset on.
func (r *Registry) AddBlob(repository string, desc v1.Descriptor, open func(offset int64) io.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.create(repository).blobs[desc.Digest] = blob{size: desc.Size, open: open}
}

// Manifest gives what a tag or digest names.
func (r *Registry) Manifest(repository, reference string) (oci.Manifest, bool) {
	m, err := (&repo{r: r, name: repository}).manifest(reference)
	return m, err == nil
}

// Blob gives a blob's bytes; nil for one that was discarded or is made while read.
func (r *Registry) Blob(repository string, d digest.Digest) ([]byte, bool) {
	b, err := (&repo{r: r, name: repository}).blob(d)
	return bytes.Clone(b.data), err == nil
}

// TagNames are a repository's tags, sorted.
func (r *Registry) TagNames(repository string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := []string{}
	if rp := r.repositories[repository]; rp != nil {
		for name := range rp.tags {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// SetTag moves a tag; an empty digest removes it.
func (r *Registry) SetTag(repository, tag string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rp := r.create(repository)
	if d == "" {
		delete(rp.tags, tag)
		return
	}
	rp.tags[tag] = tagged{d, r.now()}
}

// Remove makes a blob or manifest vanish; its tags are left dangling, as after
// an unlucky garbage collection.
func (r *Registry) Remove(repository string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rp := r.repositories[repository]; rp != nil {
		delete(rp.blobs, d)
		delete(rp.manifests, d)
	}
}

// RemoveRepository forgets a repository.
func (r *Registry) RemoveRepository(repository string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repositories, repository)
}

// Corrupt flips a bit of a blob or manifest that keeps its name and size.
func (r *Registry) Corrupt(repository string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rp := r.create(repository)
	if b, ok := rp.blobs[d]; ok && len(b.data) > 0 {
		b.data = bytes.Clone(b.data)
		b.data[len(b.data)/2] ^= 1
		rp.blobs[d] = b
	}
	if m, ok := rp.manifests[d]; ok {
		m.Bytes = bytes.Clone(m.Bytes)
		m.Bytes[len(m.Bytes)-1] ^= 1
		rp.manifests[d] = m
	}
}

// Has tells whether everything of c is in the repository, byte for byte.
func (r *Registry) Has(repository string, c Content) bool {
	for _, b := range c.Blobs {
		if data, ok := r.Blob(repository, b.Desc.Digest); !ok || !bytes.Equal(data, b.Data) {
			return false
		}
	}
	return !slices.ContainsFunc(c.Manifests, func(m oci.Manifest) bool {
		got, ok := r.Manifest(repository, m.Digest.String())
		return !ok || !bytes.Equal(got.Bytes, m.Bytes) || got.MediaType != m.MediaType
	})
}

// OpenSessions counts the uploads that were neither put nor canceled.
func (r *Registry) OpenSessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions
}
