// Package providertest is the contract every registry client passes, and a
// strict registry in memory to pass it against.
package providertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// A Suite says what a registry behind a client can do.
type Suite struct {
	// Open gives a client; the registry behind it may hold other things.
	Open func(t *testing.T) oci.Registry
	// Catalog: it lists its repositories.
	Catalog bool
	// Mount: it mounts blobs from other repositories.
	Mount bool
	// Ranges: it serves parts of blobs.
	Ranges bool
	// Referrers: it has the referrers API.
	Referrers bool
	// Strict: it refuses manifests whose parts it lacks, and false digests.
	Strict bool
	// Resume: its sessions tell what they have kept.
	Resume bool
	// SHA512: it takes sha512 blobs.
	SHA512 bool
	// NoDeletes: it removes no tag alone.
	NoDeletes bool
}

// Bytes is a body held in memory.
type Bytes []byte

// Open gives the bytes from an offset.
func (b Bytes) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > int64(len(b)) {
		return nil, fmt.Errorf("offset %d of %d: %w", offset, len(b), oci.ErrUnsupported)
	}
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}

// Describe gives the descriptor of content.
func Describe(mediaType string, content []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// PushBlob uploads content or ends the test.
func PushBlob(t *testing.T, repo oci.Repository, content []byte) v1.Descriptor {
	t.Helper()
	desc := Describe(v1.MediaTypeImageLayerGzip, content)
	put(t, repo, desc, content)
	return desc
}

func put(t *testing.T, repo oci.Repository, desc v1.Descriptor, content []byte) {
	t.Helper()
	upload, mounted, err := repo.Start(t.Context(), desc, nil)
	if err != nil || mounted {
		t.Fatalf("start: mounted %v, %v", mounted, err)
	}
	if err := upload.Put(t.Context(), Bytes(content)); err != nil {
		t.Fatalf("put: %v", err)
	}
}

// Image makes an image's manifest of blobs.
func Image(subject *v1.Descriptor, config v1.Descriptor, layers ...v1.Descriptor) oci.Manifest {
	config.MediaType = v1.MediaTypeImageConfig
	return encode(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: layers, Subject: subject,
	})
}

// Index makes an index of manifests.
func Index(manifests ...v1.Descriptor) oci.Manifest {
	return encode(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: manifests,
	})
}

func encode(mediaType string, doc any) oci.Manifest {
	content, err := json.Marshal(doc)
	if err != nil {
		panic(err) // plain values
	}
	return oci.Manifest{MediaType: mediaType, Digest: digest.FromBytes(content), Bytes: content}
}

// Random gives n bytes that nobody has seen.
func Random(n int) []byte {
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	return content
}

// PushImage uploads an image of one layer under a tag.
func PushImage(t *testing.T, repo oci.Repository, tag string, subject *v1.Descriptor) oci.Manifest {
	t.Helper()
	m := Image(subject, PushBlob(t, repo, Random(100)), PushBlob(t, repo, Random(1000)))
	reference := tag
	if tag == "" {
		reference = m.Digest.String()
	}
	if _, err := repo.PushManifest(t.Context(), reference, m); err != nil {
		t.Fatalf("push manifest: %v", err)
	}
	return m
}

// Run holds a client against the contract of oci.
func Run(t *testing.T, s Suite) {
	name := func() string { return fmt.Sprintf("contract/r%016x", rand.Uint64()) }
	t.Run("ping", func(t *testing.T) {
		if err := s.Open(t).Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("identity", func(t *testing.T) {
		if id := s.Open(t).Identity(); id == "" || id != s.Open(t).Identity() {
			t.Fatalf("identity %q is not the same twice", id)
		}
	})
	t.Run("blobs", func(t *testing.T) { testBlobs(t, s, s.Open(t).Repository(name())) })
	t.Run("ranges", func(t *testing.T) { testRanges(t, s, s.Open(t).Repository(name())) })
	t.Run("uploads", func(t *testing.T) { testUploads(t, s, s.Open(t).Repository(name())) })
	t.Run("mount", func(t *testing.T) {
		reg := s.Open(t)
		testMount(t, s, reg.Repository(name()), reg.Repository(name()))
	})
	t.Run("manifests", func(t *testing.T) { testManifests(t, s, s.Open(t).Repository(name())) })
	t.Run("absent", func(t *testing.T) { testAbsent(t, s.Open(t).Repository(name())) })
	t.Run("tags", func(t *testing.T) { testTags(t, s.Open(t).Repository(name())) })
	t.Run("catalog", func(t *testing.T) { testCatalog(t, s, s.Open(t), name()) })
	t.Run("referrers", func(t *testing.T) { testReferrers(t, s, s.Open(t).Repository(name())) })
	t.Run("deletes", func(t *testing.T) { testDeletes(t, s, s.Open(t).Repository(name())) })
	t.Run("names", func(t *testing.T) { testNames(t, s.Open(t)) })
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Open(t).Repository(name()).Resolve(ctx, "latest"); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want canceled", err)
		}
	})
}
