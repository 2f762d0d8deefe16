package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// fallbackTries bounds how often a fallback index is written when others write
// it too.
const fallbackTries = 5

// A fallbackIndex is the index under a subject's fallback tag: the one manifest
// we write ourselves. Fields and descriptors we did not write stay as they are.
type fallbackIndex struct {
	fields    map[string]json.RawMessage
	manifests []json.RawMessage
	digests   map[digest.Digest]bool
}

// parseFallback reads an index; a manifest that is none gives ErrInvalid.
func parseFallback(m oci.Manifest) (*fallbackIndex, error) {
	index := &fallbackIndex{digests: make(map[digest.Digest]bool)}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return nil, err
	}
	if !oci.IsIndex(refs.MediaType) {
		return nil, fmt.Errorf("the fallback tag names a %.80q, not an index: %w", refs.MediaType, oci.ErrInvalid)
	}
	if err := json.Unmarshal(m.Bytes, &index.fields); err != nil {
		return nil, fmt.Errorf("fallback index: %w", oci.ErrInvalid)
	}
	if err := json.Unmarshal(index.fields["manifests"], &index.manifests); err != nil && index.fields["manifests"] != nil {
		return nil, fmt.Errorf("fallback index: %w", oci.ErrInvalid)
	}
	for _, desc := range refs.Manifests {
		index.digests[desc.Digest] = true
	}
	return index, nil
}

func newFallback() *fallbackIndex {
	return &fallbackIndex{
		fields: map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + v1.MediaTypeImageIndex + `"`),
		},
		digests: make(map[digest.Digest]bool),
	}
}

// add lists descriptors that are not listed yet, and tells whether there were any.
func (x *fallbackIndex) add(referrers []*node) (bool, error) {
	changed := false
	for _, n := range referrers {
		if x.digests[n.manifest.Digest] {
			continue
		}
		desc := n.manifest.Descriptor()
		desc.ArtifactType, desc.Annotations = n.refs.ArtifactType, n.refs.Annotations
		if desc.ArtifactType == "" {
			desc.ArtifactType = configType(n.manifest)
		}
		data, err := json.Marshal(desc)
		if err != nil {
			return false, err
		}
		x.digests[n.manifest.Digest] = true
		x.manifests = append(x.manifests, data)
		changed = true
	}
	return changed, nil
}

// configType is what stands for an artifact type where a manifest has none.
func configType(m oci.Manifest) string {
	var doc struct {
		Config struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
	}
	_ = json.Unmarshal(m.Bytes, &doc) // it has been parsed before
	return doc.Config.MediaType
}

// manifest gives the index's bytes: the same content always gives the same.
func (x *fallbackIndex) manifest() (oci.Manifest, error) {
	list, err := json.Marshal(x.manifests)
	if err != nil {
		return oci.Manifest{}, err
	}
	x.fields["manifests"] = list
	data, err := json.Marshal(x.fields)
	if err != nil {
		return oci.Manifest{}, err
	}
	if len(data) > oci.MaxManifestSize {
		return oci.Manifest{}, fmt.Errorf("a fallback index of %d bytes: %w", len(data), oci.ErrTooLarge)
	}
	mediaType := v1.MediaTypeImageIndex
	if err := json.Unmarshal(x.fields["mediaType"], &mediaType); err != nil && x.fields["mediaType"] != nil {
		return oci.Manifest{}, fmt.Errorf("fallback index: %w", oci.ErrInvalid)
	}
	return oci.Manifest{MediaType: mediaType, Digest: digest.FromBytes(data), Bytes: data}, nil
}

// keepFallback has a destination's fallback tag list referrers that are there:
// the union with what it lists already. It is written only where that changes
// it, by one at a time, and read again after the PUT; if another writer came
// between, once more. It gives the bytes written.
func (c *Copier) keepFallback(ctx context.Context, dst Destination, subject digest.Digest, referrers []*node) (written int64, err error) {
	slices.SortFunc(referrers, func(a, b *node) int {
		return strings.Compare(string(a.manifest.Digest), string(b.manifest.Digest))
	})
	tag := oci.FallbackTag(subject)
	unlock, err := c.locks.lock(ctx, dst.Identity+"\x00"+dst.Repository.Name()+"\x00"+tag)
	if err != nil {
		return 0, err
	}
	defer unlock()
	var last []byte
	for range fallbackTries {
		index := newFallback()
		present, err := dst.Repository.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), tag)
		switch {
		case err == nil:
			if index, err = parseFallback(present); err != nil {
				return written, err
			}
			if last != nil && bytes.Equal(present.Bytes, last) {
				return written, nil
			}
		case !errors.Is(err, oci.ErrNotFound):
			return written, fmt.Errorf("read fallback index: %w", err)
		}
		changed, err := index.add(referrers)
		if err != nil {
			return written, err
		}
		if !changed {
			return written, nil
		}
		m, err := index.manifest()
		if err != nil {
			return written, err
		}
		if _, err := dst.Repository.PushManifest(oci.WithOperation(ctx, oci.OpManifestWrite), tag, m); err != nil {
			return written, fmt.Errorf("push fallback index: %w", err)
		}
		written += int64(len(m.Bytes))
		last = m.Bytes
	}
	return written, fmt.Errorf("the fallback index of %s is written by others all the time: %w", subject, oci.ErrInterrupted)
}
