package oci

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds on what we read of a registry's manifests. Distribution and most
// others refuse manifests over 4 MiB (distribution-spec asks for at least that).
const (
	MaxManifestSize = 4 << 20
	// MaxReferences bounds the descriptors of one manifest.
	MaxReferences = 20000
	// MaxDepth bounds how deep indexes nest.
	MaxDepth = 8
	// MaxValues bounds the values of one JSON document that a registry gives:
	// some megabytes of empty lists would take a hundred times as much decoded.
	// MaxReferences descriptors of twenty fields fit.
	MaxValues = 400_000
	// MaxSize bounds the size a descriptor may tell, 16 TiB: more than any
	// registry takes, and sums of all sizes in a graph stay within 64 bits.
	MaxSize = 1 << 44
)

// Media types that image-spec does not name.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1Sig   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	// MediaTypeArtifactManifest was in image-spec 1.1's release candidates; registries still hold some.
	MediaTypeArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json"
	MediaTypeDockerForeign    = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// ManifestMediaTypes is what we ask a registry for, in our order of preference.
var ManifestMediaTypes = []string{
	v1.MediaTypeImageIndex, v1.MediaTypeImageManifest,
	MediaTypeDockerManifestList, MediaTypeDockerManifest,
	MediaTypeArtifactManifest,
	MediaTypeDockerSchema1Sig, MediaTypeDockerSchema1,
}

// A Manifest is a manifest's exact bytes.
type Manifest struct {
	MediaType string
	Digest    digest.Digest
	Bytes     []byte
}

// Descriptor describes the manifest as an index would.
func (m Manifest) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Bytes))}
}

// References is what a manifest names.
type References struct {
	MediaType    string
	ArtifactType string
	// Manifests are an index's children, in its order, each digest once.
	Manifests []v1.Descriptor
	// Blobs are config and layers, in order, each digest once; foreign ones are left out.
	Blobs []v1.Descriptor
	// Foreign are non-distributable layers: passed on by their descriptor
	// alone, their URLs never asked.
	Foreign []v1.Descriptor
	// Subject is what the manifest refers to, nil when nothing.
	Subject     *v1.Descriptor
	Annotations map[string]string
}

// ParseReferences reads what a manifest names. Schema 1 gives ErrUnsupported; a
// manifest that is no such JSON, names an unusable digest or size,
// or names more than MaxReferences, or holds more than MaxValues, gives ErrInvalid.
func ParseReferences(m Manifest) (References, error) {
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *v1.Descriptor    `json:"config"`
		Layers        []v1.Descriptor   `json:"layers"`
		Blobs         []v1.Descriptor   `json:"blobs"`
		Manifests     []v1.Descriptor   `json:"manifests"`
		Subject       *v1.Descriptor    `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
		FSLayers      json.RawMessage   `json:"fsLayers"`
	}
	if m.MediaType == MediaTypeDockerSchema1 || m.MediaType == MediaTypeDockerSchema1Sig {
		return References{}, fmt.Errorf("schema 1 manifest %s: %w", m.Digest, ErrUnsupported)
	}
	if n := CountValues(m.Bytes); n > MaxValues {
		return References{}, fmt.Errorf("manifest %s holds %d values, at most %d are read: %w", m.Digest, n, MaxValues, ErrInvalid)
	}
	if err := json.Unmarshal(m.Bytes, &doc); err != nil {
		return References{}, fmt.Errorf("manifest %s is not JSON: %w", m.Digest, ErrInvalid)
	}
	mediaType := m.MediaType
	if doc.MediaType != "" {
		mediaType = doc.MediaType
	}
	refs := References{MediaType: mediaType, ArtifactType: doc.ArtifactType, Subject: doc.Subject, Annotations: doc.Annotations}
	if doc.SchemaVersion == 1 && doc.FSLayers != nil {
		return References{}, fmt.Errorf("schema 1 manifest %s: %w", m.Digest, ErrUnsupported)
	}
	if n := len(doc.Layers) + len(doc.Blobs) + len(doc.Manifests); n > MaxReferences {
		return References{}, fmt.Errorf("manifest %s names %d things, at most %d are followed: %w", m.Digest, n, MaxReferences, ErrInvalid)
	}
	if refs.Subject != nil {
		if err := CheckDescriptor(*refs.Subject); err != nil {
			return References{}, fmt.Errorf("manifest %s: subject: %w", m.Digest, err)
		}
	}
	seen := make(map[digest.Digest]bool)
	add := func(to *[]v1.Descriptor, what string, desc v1.Descriptor) error {
		if err := CheckDescriptor(desc); err != nil {
			return fmt.Errorf("manifest %s: %s: %w", m.Digest, what, err)
		}
		if !seen[desc.Digest] {
			seen[desc.Digest] = true
			*to = append(*to, desc)
		}
		return nil
	}
	for _, desc := range doc.Manifests {
		if err := add(&refs.Manifests, "child", desc); err != nil {
			return References{}, err
		}
	}
	if doc.Config != nil && len(doc.Manifests) == 0 {
		if refs.ArtifactType == "" && doc.Config.MediaType != v1.MediaTypeEmptyJSON {
			refs.ArtifactType = doc.Config.MediaType
		}
		if err := add(&refs.Blobs, "config", *doc.Config); err != nil {
			return References{}, err
		}
	}
	for _, layers := range [][]v1.Descriptor{doc.Layers, doc.Blobs} {
		for _, desc := range layers {
			to := &refs.Blobs
			if IsForeign(desc) {
				to = &refs.Foreign
			}
			if err := add(to, "layer", desc); err != nil {
				return References{}, err
			}
		}
	}
	return refs, nil
}

// IsIndex tells whether a media type is an index or a manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == MediaTypeDockerManifestList
}

// IsManifest tells whether a media type is one of a manifest or index.
func IsManifest(mediaType string) bool {
	for _, t := range ManifestMediaTypes {
		if t == mediaType {
			return true
		}
	}
	return false
}

// IsForeign tells whether a layer is not meant to be distributed: its type says
// so, and it names URLs elsewhere.
func IsForeign(desc v1.Descriptor) bool {
	return desc.MediaType == MediaTypeDockerForeign ||
		strings.HasPrefix(desc.MediaType, "application/vnd.oci.image.layer.nondistributable.v1.tar")
}

// CheckDescriptor refuses a descriptor whose digest or size cannot be used (ErrInvalid).
func CheckDescriptor(desc v1.Descriptor) error {
	if err := CheckDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size < 0 || desc.Size > MaxSize {
		return fmt.Errorf("%s has size %d: %w", desc.Digest, desc.Size, ErrInvalid)
	}
	return nil
}
