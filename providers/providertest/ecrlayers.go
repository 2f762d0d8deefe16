package providertest

import (
	"encoding/json"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// Archive puts what a tag names into the archival storage class: it is listed
// to those who ask for such images, and no GET finds it until it is pushed again.
func (e *ECR) Archive(name, tag string) {
	d := e.Registry.Tag(name, tag)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.archived == nil {
		e.archived = make(map[string]bool)
	}
	e.archived[name+"@"+d.String()] = true
}

// status is an image's storage class, as DescribeImages tells it.
func (e *ECR) status(name string, d digest.Digest) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.archived[name+"@"+d.String()] {
		return "ARCHIVED"
	}
	return "ACTIVE"
}

// shown tells whether a filter of DescribeImages lets an image through; without
// one only active images are told.
func (e *ECR) shown(name string, d digest.Digest, filter string) bool {
	if filter == "" {
		filter = "ACTIVE"
	}
	return filter == "ANY" || filter == e.status(name, d)
}

// away refuses reads of archived images; a push takes them out of the archive.
func (e *ECR) away(w http.ResponseWriter, r *http.Request, name, what, reference string) bool {
	e.mu.Lock()
	none := len(e.archived) == 0
	e.mu.Unlock()
	if none || what != "manifests" {
		return false
	}
	d := digest.Digest(reference)
	if d.Validate() != nil {
		d = e.Registry.Tag(name, reference)
	}
	if r.Method == http.MethodPut || e.status(name, d) != "ARCHIVED" {
		return false
	}
	Fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found")
	return true
}

// restored takes what was pushed out of the archive.
func (e *ECR) restored(p pushed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.archived, p.repository+"@"+p.digest.String())
}

func (e *ECR) setPolicy(w http.ResponseWriter, in ecrRequest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	repository := e.repositories[e.whole(in.RepositoryName)]
	switch {
	case repository == nil:
		e.unknown(w, in.RepositoryName)
	case !json.Valid([]byte(in.PolicyText)):
		apiFault(w, 400, "InvalidParameterException", "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'")
	default:
		repository.Policy = in.PolicyText
		ecrAnswer(w, map[string]any{"registryId": e.Account})
	}
}

// checkLayers tells which blobs are there; it is no pull.
func (e *ECR) checkLayers(w http.ResponseWriter, in ecrRequest) {
	name := e.whole(in.RepositoryName)
	if _, there := e.Made(name); !there {
		e.unknown(w, in.RepositoryName)
		return
	}
	if len(in.LayerDigests) < 1 || len(in.LayerDigests) > 100 {
		apiFault(w, 400, "InvalidParameterException", "Invalid parameter at 'layerDigests' failed to satisfy constraint: 'Member must have length less than or equal to 100'")
		return
	}
	layers, failures := []any{}, []any{}
	for _, text := range in.LayerDigests {
		d := digest.Digest(text)
		data, there := e.Registry.Blob(name, d)
		switch {
		case d.Validate() != nil || d.Algorithm() != digest.SHA256:
			failures = append(failures, map[string]any{"layerDigest": text, "failureCode": "InvalidLayerDigest", "failureReason": "not a digest"})
		case there:
			layers = append(layers, map[string]any{
				"layerDigest": text, "layerAvailability": "AVAILABLE", "layerSize": len(data), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
			})
		default:
			layers = append(layers, map[string]any{"layerDigest": text, "layerAvailability": "UNAVAILABLE"})
		}
	}
	ecrAnswer(w, map[string]any{"layers": layers, "failures": failures})
}
