package check

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// A probe is a tiny image whose content nobody has had before: what is taken
// away again cannot be anybody's.
type probe struct {
	tag           string
	config, layer part
	manifest      oci.Manifest
}

type part struct {
	desc v1.Descriptor
	data []byte
}

// Open gives the part's bytes from an offset.
func (p part) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > int64(len(p.data)) {
		return nil, fmt.Errorf("offset %d of %d bytes: %w", offset, len(p.data), oci.ErrUnsupported)
	}
	return io.NopCloser(bytes.NewReader(p.data[offset:])), nil
}

// nonce is what makes a probe its own.
func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func newProbe() (probe, error) {
	own := nonce()
	layer, content, err := layerOf("probe " + own + " of twinport check: it may be deleted\n")
	if err != nil {
		return probe{}, err
	}
	image := v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(content)}}}
	image.Config.Labels = map[string]string{"twinport.check": own}
	config, err := json.Marshal(image)
	if err != nil {
		return probe{}, err
	}
	p := probe{tag: "twinport-check-" + own, config: partOf(v1.MediaTypeImageConfig, config), layer: partOf(v1.MediaTypeImageLayerGzip, layer)}
	manifest, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: p.config.desc, Layers: []v1.Descriptor{p.layer.desc},
		Annotations: map[string]string{v1.AnnotationDescription: "probe of twinport check: it may be deleted"},
	})
	p.manifest = oci.Manifest{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Bytes: manifest}
	return p, err
}

func partOf(mediaType string, data []byte) part {
	return part{desc: v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data: data}
}

// layerOf is a layer of one file, and what is in it before it is packed.
func layerOf(text string) (layer, content []byte, err error) {
	var plain, packed bytes.Buffer
	archive := tar.NewWriter(&plain)
	if err := archive.WriteHeader(&tar.Header{Name: "twinport-check", Mode: 0o444, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return nil, nil, err
	}
	if _, err := io.WriteString(archive, text); err != nil {
		return nil, nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, nil, err
	}
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(plain.Bytes()); err != nil {
		return nil, nil, err
	}
	return packed.Bytes(), plain.Bytes(), zip.Close()
}
