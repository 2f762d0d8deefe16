package generic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

var acceptManifests = strings.Join(oci.ManifestMediaTypes, ", ")

// manifestCall is what HEAD, GET and PUT of a manifest share.
func (p *Repository) manifestCall(method, reference string, op oci.Operation) (call, error) {
	d := digest.Digest("")
	if oci.IsDigest(reference) {
		d = digest.Digest(reference)
	} else if err := oci.CheckTag(reference); err != nil {
		return call{}, err
	}
	u, err := p.path("manifests/" + reference)
	if err != nil {
		return call{}, err
	}
	separator := ":"
	if d != "" {
		separator = "@"
	}
	return call{
		op: op, what: method + " manifest " + p.full + separator + reference, method: method, url: u,
		header: http.Header{"Accept": {acceptManifests}}, scopes: p.pull(), digest: d, limit: oci.MaxManifestSize,
	}, nil
}

// Resolve asks by HEAD; where the answer lacks what it should say, by GET.
func (p *Repository) Resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	c, err := p.manifestCall(http.MethodHead, reference, oci.OpManifestHead)
	if err != nil {
		return v1.Descriptor{}, err
	}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		var refused *oci.RegistryError
		if !errors.As(err, &refused) || refused.Operation != c.what || refused.Status != 405 && refused.Status != 501 && (refused.Status != 404 || !p.reg.ways.UnsureHead) {
			return v1.Descriptor{}, err
		}
		return p.resolveByGet(ctx, reference)
	}
	mediaType := cleanMediaType(a.header.Get("Content-Type"))
	told := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if oci.CheckDigest(told) != nil || a.length < 0 || !oci.IsManifest(mediaType) {
		return p.resolveByGet(ctx, reference)
	}
	if c.digest != "" && told != c.digest {
		if told.Algorithm() == c.digest.Algorithm() {
			return v1.Descriptor{}, p.reg.mismatch(c.what, "the registry names it "+told.String())
		}
		told = c.digest // another algorithm's name for the same
	}
	return v1.Descriptor{MediaType: mediaType, Digest: told, Size: a.length}, nil
}

func (p *Repository) resolveByGet(ctx context.Context, reference string) (v1.Descriptor, error) {
	if oci.IsWithoutPulls(ctx) {
		return v1.Descriptor{}, &oci.RegistryError{
			Registry: p.reg.spec.Name, Operation: "HEAD manifest " + p.full + " " + reference, Kind: oci.ErrUnsupported,
			Message: "only reading the manifest would tell what it names",
		}
	}
	m, err := p.FetchManifest(ctx, reference)
	return m.Descriptor(), err
}

// FetchManifest reads one manifest and names it by what was received.
func (p *Repository) FetchManifest(ctx context.Context, reference string) (oci.Manifest, error) {
	c, err := p.manifestCall(http.MethodGet, reference, oci.OpManifestRead)
	if err != nil {
		return oci.Manifest{}, err
	}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		return oci.Manifest{}, err
	}
	m := oci.Manifest{MediaType: cleanMediaType(a.header.Get("Content-Type")), Bytes: a.bytes}
	if !oci.IsManifest(m.MediaType) {
		m.MediaType = sniffMediaType(m.MediaType, m.Bytes)
	}
	if c.digest != "" {
		m.Digest = c.digest.Algorithm().FromBytes(m.Bytes)
		if m.Digest != c.digest {
			return oci.Manifest{}, p.reg.mismatch(c.what, "the registry gave content of "+m.Digest.String())
		}
		return m, nil
	}
	m.Digest = digest.FromBytes(m.Bytes)
	told := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if oci.CheckDigest(told) == nil && told.Algorithm().FromBytes(m.Bytes) != told {
		return oci.Manifest{}, p.reg.mismatch(c.what, fmt.Sprintf("the registry gave content of %s for %s", m.Digest, told))
	}
	return m, nil
}

// PushManifest stores bytes verbatim. A tag that may not move but names the
// manifest already is no error: some registries refuse even that.
func (p *Repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	c, err := p.manifestCall(http.MethodPut, reference, oci.OpManifestWrite)
	if err != nil {
		return oci.Pushed{}, err
	}
	if err := oci.CheckDigest(m.Digest); err != nil {
		return oci.Pushed{}, err
	}
	if c.digest != "" && c.digest != m.Digest {
		return oci.Pushed{}, fmt.Errorf("push manifest %s as %s: %w", m.Digest, c.digest, oci.ErrInvalid)
	}
	c.header = http.Header{"Content-Type": {m.MediaType}}
	c.scopes, c.digest = p.push(), m.Digest
	c.body = &payload{bytes: m.Bytes, size: int64(len(m.Bytes))}
	c.limit = maxErrorBody
	c.accept = []int{http.StatusCreated, http.StatusOK, http.StatusNoContent}
	a, err := p.reg.do(ctx, c)
	if err != nil {
		if errors.Is(err, oci.ErrImmutable) && !oci.IsDigest(reference) {
			if desc, headErr := p.Resolve(ctx, reference); headErr == nil && desc.Digest == m.Digest {
				return oci.Pushed{}, nil
			}
		}
		return oci.Pushed{}, err
	}
	told := digest.Digest(a.header.Get("Docker-Content-Digest"))
	if oci.CheckDigest(told) == nil && told.Algorithm() == m.Digest.Algorithm() && told != m.Digest {
		return oci.Pushed{}, p.reg.mismatch(c.what, "the registry stored "+told.String()+" instead of "+m.Digest.String())
	}
	return oci.Pushed{SubjectHandled: a.header.Get("OCI-Subject") != ""}, nil
}

// cleanMediaType takes off parameters and case; what is no media type is empty.
func cleanMediaType(value string) string {
	if len(value) > 1024 {
		return ""
	}
	mediaType, _, err := mime.ParseMediaType(value)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return ""
	}
	return mediaType
}

// sniffMediaType finds a manifest's type in its bytes where the answer did not
// say: its own word, else its shape.
func sniffMediaType(told string, content []byte) string {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if json.Unmarshal(content, &doc) != nil {
		return told
	}
	switch {
	case doc.MediaType != "" && cleanMediaType(doc.MediaType) == doc.MediaType:
		return doc.MediaType
	case doc.Manifests != nil:
		return v1.MediaTypeImageIndex
	case doc.Config != nil || doc.Layers != nil:
		return v1.MediaTypeImageManifest
	case doc.FSLayers != nil:
		return oci.MediaTypeDockerSchema1
	}
	return told
}
