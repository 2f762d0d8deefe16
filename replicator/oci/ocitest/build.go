package ocitest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// A Content is one graph: what to push, and what to expect at the other end.
type Content struct {
	// Manifests are children before parents; the root is the last.
	Manifests []oci.Manifest
	// Blobs are each there once.
	Blobs []Blob
}

// A Blob is a blob's bytes and descriptor.
type Blob struct {
	Desc v1.Descriptor
	Data []byte
}

// Root is the manifest a tag names.
func (c Content) Root() oci.Manifest { return c.Manifests[len(c.Manifests)-1] }

// Digest is the root's.
func (c Content) Digest() digest.Digest { return c.Root().Digest }

// Descriptor is the root's.
func (c Content) Descriptor() v1.Descriptor { return c.Root().Descriptor() }

// NewBlob is a blob of a media type.
func NewBlob(mediaType string, data []byte) Blob {
	return Blob{v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

// Random gives size bytes that are the same for the same name.
func Random(name string, size int) []byte {
	var seed [32]byte
	copy(seed[:], digest.FromString(name).Encoded())
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// Layer is a layer of random bytes: the same name gives the same layer.
func Layer(name string, size int) Blob {
	return NewBlob(v1.MediaTypeImageLayerGzip, Random(name, size))
}

func manifestOf(mediaType string, doc any) oci.Manifest {
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err) // plain data
	}
	return oci.Manifest{MediaType: mediaType, Digest: digest.FromBytes(data), Bytes: data}
}

// Image is an OCI image of some small layers of its own.
func Image(name string, layers int) Content {
	blobs := make([]Blob, layers)
	for i := range blobs {
		blobs[i] = Layer(fmt.Sprintf("%s/layer%d", name, i), 512+i)
	}
	return ImageOf(name, blobs...)
}

// ImageOf is an OCI image with a config of its own and these layers. A layer
// with neither bytes nor a foreign type is named but not brought along.
func ImageOf(name string, layers ...Blob) Content {
	return build(v1.MediaTypeImageManifest, name, NewBlob(v1.MediaTypeImageConfig,
		fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Labels":{"name":%q}}}`, name)), layers, "", nil)
}

// DockerImage is a Docker schema 2 image.
func DockerImage(name string, layers int) Content {
	blobs := make([]Blob, layers)
	for i := range blobs {
		blobs[i] = NewBlob("application/vnd.docker.image.rootfs.diff.tar.gzip", Random(fmt.Sprintf("%s/docker%d", name, i), 700+i))
	}
	config := NewBlob("application/vnd.docker.container.image.v1+json", fmt.Appendf(nil, `{"os":"linux","id":%q}`, name))
	return build(oci.MediaTypeDockerManifest, name, config, blobs, "", nil)
}

// ForeignImage is an image with one layer of its own and one that stays elsewhere.
func ForeignImage(name string) Content {
	foreign := NewBlob(oci.MediaTypeDockerForeign, Random(name+"/foreign", 99))
	foreign.Desc.URLs = []string{"https://layers.example.com/" + name}
	foreign.Data = nil
	return ImageOf(name, Layer(name, 300), foreign)
}

// SHA512Image is an image whose layer has a sha512 digest.
func SHA512Image(name string) Content {
	layer := Layer(name+"/sha512", 400)
	layer.Desc.Digest = digest.SHA512.FromBytes(layer.Data)
	return ImageOf(name, layer)
}

// HelmChart is an OCI artifact as helm pushes it.
func HelmChart(name string) Content {
	config := NewBlob("application/vnd.cncf.helm.config.v1+json", fmt.Appendf(nil, `{"name":%q,"version":"1.0.0"}`, name))
	chart := NewBlob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", Random(name+"/chart", 900))
	return build(v1.MediaTypeImageManifest, name, config, []Blob{chart}, "", nil)
}

// Artifact is an OCI artifact with the empty config (its data field filled)
// and, where subject is not nil, a subject.
func Artifact(name, artifactType string, subject *v1.Descriptor) Content {
	empty := Blob{v1.DescriptorEmptyJSON, v1.DescriptorEmptyJSON.Data}
	return build(v1.MediaTypeImageManifest, name, empty, []Blob{NewBlob("application/json", fmt.Appendf(nil, `{"about":%q}`, name))}, artifactType, subject)
}

// CosignTag is what cosign keeps under a tag beside a subject; suffix is sig,
// att or sbom.
func CosignTag(name string, subject digest.Digest, suffix string) (tag string, c Content) {
	layer := NewBlob("application/vnd.dev.cosign.simplesigning.v1+json", fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q}},"name":%q}`, subject, name))
	layer.Desc.Annotations = map[string]string{"dev.cosignproject.cosign/signature": name}
	return subject.Algorithm().String() + "-" + subject.Encoded() + "." + suffix, ImageOf(name, layer)
}

// Schema1 is a manifest nobody can carry unchanged any more.
func Schema1(name string) Content {
	return Content{Manifests: []oci.Manifest{manifestOf(oci.MediaTypeDockerSchema1, map[string]any{
		"schemaVersion": 1, "name": name, "tag": "old", "fsLayers": []any{map[string]string{"blobSum": digest.FromString(name).String()}},
	})}}
}

func build(mediaType, name string, config Blob, layers []Blob, artifactType string, subject *v1.Descriptor) Content {
	doc := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, ArtifactType: artifactType,
		Config: config.Desc, Layers: []v1.Descriptor{}, Subject: subject,
		Annotations: map[string]string{"org.opencontainers.image.title": name},
	}
	c := Content{}
	seen := make(map[digest.Digest]bool)
	add := func(b Blob) {
		if b.Data != nil && !seen[b.Desc.Digest] {
			seen[b.Desc.Digest] = true
			c.Blobs = append(c.Blobs, b)
		}
	}
	add(config)
	for _, layer := range layers {
		doc.Layers = append(doc.Layers, layer.Desc)
		add(layer)
	}
	c.Manifests = []oci.Manifest{manifestOf(mediaType, doc)}
	return c
}

// Index is an OCI index over the children's roots.
func Index(children ...Content) Content {
	return indexOf(v1.MediaTypeImageIndex, children)
}

// DockerList is a Docker manifest list over the children's roots.
func DockerList(children ...Content) Content {
	return indexOf(oci.MediaTypeDockerManifestList, children)
}

// MultiArch is an index over images for some platforms.
func MultiArch(name string, platforms, layers int) Content {
	children := make([]Content, platforms)
	for i := range children {
		children[i] = Image(fmt.Sprintf("%s/platform%d", name, i), layers)
	}
	return Index(children...)
}

func indexOf(mediaType string, children []Content) Content {
	doc := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: []v1.Descriptor{}}
	c := Content{}
	manifests := make(map[digest.Digest]bool)
	blobs := make(map[digest.Digest]bool)
	for i, child := range children {
		for _, m := range child.Manifests {
			if !manifests[m.Digest] {
				manifests[m.Digest] = true
				c.Manifests = append(c.Manifests, m)
			}
		}
		for _, b := range child.Blobs {
			if !blobs[b.Desc.Digest] {
				blobs[b.Desc.Digest] = true
				c.Blobs = append(c.Blobs, b)
			}
		}
		desc := child.Descriptor()
		desc.Platform = &v1.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}
		doc.Manifests = append(doc.Manifests, desc)
	}
	c.Manifests = append(c.Manifests, manifestOf(mediaType, doc))
	return c
}

// ReferrerDescriptor describes a manifest as a list of referrers does: with its
// artifact type and annotations (distribution-spec, "Listing Referrers").
func ReferrerDescriptor(m oci.Manifest) v1.Descriptor {
	desc := m.Descriptor()
	var doc struct {
		ArtifactType string            `json:"artifactType"`
		Config       *v1.Descriptor    `json:"config"`
		Annotations  map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(m.Bytes, &doc) // what is no JSON has none of these
	desc.ArtifactType, desc.Annotations = doc.ArtifactType, doc.Annotations
	if desc.ArtifactType == "" && doc.Config != nil {
		desc.ArtifactType = doc.Config.MediaType
	}
	return desc
}
