package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "crypto/sha512" // digests of that algorithm
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// A Blob is content by descriptor; big ones are made while they are read.
type Blob struct {
	v1.Descriptor
	// Open begins reading from the start; any number may read at once.
	Open func() io.Reader
}

// A Graph is a manifest with everything it needs.
type Graph struct {
	v1.Descriptor
	Bytes    []byte
	Blobs    []Blob   // config and layers that a registry holds
	Children []*Graph // an index's
	Subject  *Graph   // what an artifact refers to
}

// All visits the graph, children before parents.
func (g *Graph) All(visit func(*Graph)) {
	for _, child := range g.Children {
		child.All(visit)
	}
	visit(g)
}

// Generator makes content that depends on its seed and the order of calls
// alone. It is safe for use by one goroutine.
type Generator struct {
	seed uint64
	next uint64
}

// NewGenerator returns a generator; equal seeds make equal content.
func NewGenerator(seed uint64) *Generator { return &Generator{seed: seed} }

func (g *Generator) id() uint64 {
	g.next++
	return g.next
}

func (g *Generator) bytes(id uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], g.seed)
	binary.LittleEndian.PutUint64(key[8:], id)
	out := make([]byte, n)
	must(rand.NewChaCha8(key).Read(out))
	return out
}

// BlobOf wraps bytes as a blob.
func BlobOf(mediaType string, data []byte) Blob {
	return Blob{
		Descriptor: v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Open:       func() io.Reader { return bytes.NewReader(data) },
	}
}

// layer is a real gzip'd tar with one file of n random bytes.
func (g *Generator) layer(mediaType string, id uint64, n int) (Blob, digest.Digest) {
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	must(0, tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("data-%d-%d", g.seed, id), Size: int64(n), Mode: 0o644}))
	must(tw.Write(g.bytes(id, n)))
	must(0, tw.Close())
	var zipped bytes.Buffer
	zw := must(gzip.NewWriterLevel(&zipped, gzip.BestSpeed))
	must(zw.Write(plain.Bytes()))
	must(0, zw.Close())
	return BlobOf(mediaType, zipped.Bytes()), digest.FromBytes(plain.Bytes())
}

// An ImageSpec says what an image is made of; the zero value is an OCI image
// with one layer of its own of 2 KiB.
type ImageSpec struct {
	Layers    int    // default 1
	LayerSize int    // bytes before tar, default 2 KiB
	Shared    []int  // numbers of layers that any image of the generator's seed may share
	Docker    bool   // Docker schema 2 instead of OCI
	Platform  string // architecture; "amd64" where empty
	SHA512    bool   // the layers' digests are sha512
	Foreign   bool   // one more layer that names a URL and is not in the registry
}

const sharedLayers = 1 << 40

// Image makes an image.
func (g *Generator) Image(spec ImageSpec) *Graph {
	if spec.Layers == 0 && len(spec.Shared) == 0 {
		spec.Layers = 1
	}
	if spec.LayerSize == 0 {
		spec.LayerSize = 2 << 10
	}
	if spec.Platform == "" {
		spec.Platform = "amd64"
	}
	manifestType, configType, layerType := v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip
	if spec.Docker {
		manifestType, configType, layerType = DockerManifest, DockerConfig, DockerLayer
	}
	config := v1.Image{Platform: v1.Platform{Architecture: spec.Platform, OS: "linux"}}
	config.RootFS.Type = "layers"
	created := time.Unix(1700000000, 0).UTC()
	config.Created = &created
	config.Config.Labels = map[string]string{"integration": fmt.Sprintf("%d-%d", g.seed, g.id())}
	var blobs []Blob
	add := func(id uint64) {
		layer, diff := g.layer(layerType, id, spec.LayerSize)
		if spec.SHA512 {
			layer.Digest = digest.SHA512.FromBytes(must(io.ReadAll(layer.Open())))
		}
		blobs = append(blobs, layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diff)
	}
	for _, n := range spec.Shared {
		add(sharedLayers + uint64(n))
	}
	for range spec.Layers {
		add(g.id())
	}
	configBlob := BlobOf(configType, must(json.Marshal(config)))
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Config: configBlob.Descriptor}
	for _, b := range blobs {
		m.Layers = append(m.Layers, b.Descriptor)
	}
	if spec.Foreign {
		foreign := BlobOf(DockerForeign, g.bytes(g.id(), 64)).Descriptor
		if !spec.Docker {
			foreign.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		}
		foreign.URLs = []string{"https://foreign.example/layer"}
		m.Layers = append(m.Layers, foreign)
	}
	out := graph(manifestType, m)
	out.Platform = &config.Platform
	out.Blobs = append([]Blob{configBlob}, blobs...)
	return out
}

// Variants makes n manifests that differ in an annotation alone and share
// their config and layer: the cheapest pushes there are.
func (g *Generator) Variants(n int) []*Graph {
	base := g.Image(ImageSpec{})
	var m v1.Manifest
	must(0, json.Unmarshal(base.Bytes, &m))
	out := make([]*Graph, n)
	for i := range out {
		m.Annotations = map[string]string{"variant": fmt.Sprintf("%d-%d", g.seed, g.id())}
		out[i] = graph(v1.MediaTypeImageManifest, m)
		out[i].Blobs = base.Blobs
	}
	return out
}

// Index makes an index of the children given; they may be indexes themselves.
func (g *Generator) Index(children ...*Graph) *Graph {
	return g.index(v1.MediaTypeImageIndex, children)
}

// DockerList makes a Docker manifest list.
func (g *Generator) DockerList(children ...*Graph) *Graph { return g.index(DockerList, children) }

func (g *Generator) index(mediaType string, children []*Graph) *Graph {
	idx := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType}
	for _, child := range children {
		idx.Manifests = append(idx.Manifests, child.Descriptor)
	}
	if mediaType == v1.MediaTypeImageIndex {
		idx.Annotations = map[string]string{"integration": fmt.Sprintf("%d-%d", g.seed, g.id())}
	}
	out := graph(mediaType, idx)
	out.Children = children
	return out
}

// MultiArch makes an index of an image for each architecture.
func (g *Generator) MultiArch(spec ImageSpec, architectures ...string) *Graph {
	var children []*Graph
	for _, a := range architectures {
		spec.Platform = a
		children = append(children, g.Image(spec))
	}
	if spec.Docker {
		return g.DockerList(children...)
	}
	return g.Index(children...)
}

// Artifact makes an OCI artifact of the type given, with the empty config
// carried in its descriptor's data; subject may be nil.
func (g *Generator) Artifact(artifactType string, subject *Graph, annotations map[string]string) *Graph {
	payload := BlobOf(artifactType, fmt.Appendf(nil, `{"payload":"%x"}`, g.bytes(g.id(), 48)))
	empty := v1.DescriptorEmptyJSON
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: empty, Layers: []v1.Descriptor{payload.Descriptor},
		Annotations: maps.Clone(annotations),
	}
	if subject != nil {
		m.Subject = &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	out := graph(v1.MediaTypeImageManifest, m)
	out.ArtifactType = artifactType
	out.Annotations = m.Annotations
	out.Subject = subject
	out.Blobs = []Blob{BlobOf(empty.MediaType, []byte("{}")), payload}
	return out
}

// Signature makes what cosign pushes under the tag SignatureTag(subject): a
// manifest without a subject field.
func (g *Generator) Signature(subject *Graph) *Graph {
	payload := BlobOf("application/vnd.dev.cosign.simplesigning.v1+json",
		fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q}},"optional":{"n":"%x"}}`, subject.Digest, g.bytes(g.id(), 8)))
	config := BlobOf(v1.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, payload.Digest))
	out := graph(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []v1.Descriptor{payload.Descriptor},
	})
	out.Blobs = []Blob{config, payload}
	return out
}

// SignatureTag is cosign's tag for a subject's signature.
func SignatureTag(subject *Graph) string { return "sha256-" + subject.Digest.Encoded() + ".sig" }

// FallbackTag is the tag of the index that lists a subject's referrers.
func FallbackTag(subject *Graph) string { return "sha256-" + subject.Digest.Encoded() }

// BigBlob is n bytes that are zero but for a mark every MiB, so that a byte
// out of its place shows; it is made while it is read. Its digest is computed
// here, in one pass without holding it.
func (g *Generator) BigBlob(n int64) Blob {
	mark := g.bytes(g.id(), 8)
	open := func() io.Reader { return &markedReader{mark: mark, left: n} }
	h := sha256.New()
	must(io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{open()}, make([]byte, 1<<20)))
	return Blob{
		Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, h), Size: n},
		Open:       open,
	}
}

// ImageOf makes an image whose only layer is the blob given.
func (g *Generator) ImageOf(layer Blob) *Graph {
	config := BlobOf(v1.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer.Digest))
	out := graph(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []v1.Descriptor{layer.Descriptor},
	})
	out.Blobs = []Blob{config, layer}
	return out
}

// markedReader gives mark and the number of the MiB at the start of each MiB, and zeros.
type markedReader struct {
	mark []byte
	at   int64
	left int64
}

func (r *markedReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.left)]
	clear(p)
	first := r.at >> 20
	for mib := first; mib<<20 < r.at+int64(len(p)); mib++ {
		var head [16]byte
		copy(head[:8], r.mark)
		binary.BigEndian.PutUint64(head[8:], uint64(mib))
		from := mib<<20 - r.at
		if from >= 0 {
			copy(p[from:], head[:])
		} else if -from < int64(len(head)) {
			copy(p, head[-from:])
		}
	}
	r.at += int64(len(p))
	r.left -= int64(len(p))
	return len(p), nil
}

func graph(mediaType string, doc any) *Graph {
	raw := must(json.MarshalIndent(doc, "", "   ")) // unusual spacing: a re-serialization shows
	return &Graph{
		Descriptor: v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))},
		Bytes:      raw,
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
