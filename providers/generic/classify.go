package generic

import (
	"errors"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// classify gives an answer its kind and hint: by the code where that says it,
// else by the status and what was asked.
func classify(c *call, e *oci.RegistryError) {
	e.Kind = kindOfCode(c, e)
	if e.Kind == nil {
		e.Kind = kindOfStatus(c, e)
	}
	if e.Hint == "" {
		e.Hint = hintFor(c, e)
	}
}

func isWrite(c *call) bool { return c.method != http.MethodGet && c.method != http.MethodHead }

// session tells whether the call is about an upload session that was begun.
func isSession(c *call) bool { return c.op == oci.OpBlobWrite }

func kindOfCode(c *call, e *oci.RegistryError) error {
	if refusesForeign(c, e) {
		return oci.ErrRefused
	}
	if e.Status >= 500 {
		return nil // a proxy's fault may carry any code
	}
	switch e.Code {
	case "UNAUTHORIZED", "DENIED", "FORBIDDEN":
		if e.Status == http.StatusMethodNotAllowed {
			return oci.ErrRefused // read-only mode
		}
		return oci.ErrDenied
	case "NAME_UNKNOWN":
		return oci.ErrRepositoryUnknown
	case "MANIFEST_BLOB_UNKNOWN", "REFERENCED_MANIFEST_UNKNOWN":
		return oci.ErrBlobUnknown
	case "MANIFEST_UNKNOWN", "BLOB_UNKNOWN":
		if c.op == oci.OpManifestWrite {
			return oci.ErrBlobUnknown
		}
		return oci.ErrNotFound
	case "TAG_IMMUTABLE", "IMAGE_TAG_ALREADY_EXISTS":
		return oci.ErrImmutable
	case "TAG_INVALID":
		if speaksOfImmutable(e.Message) {
			return oci.ErrImmutable
		}
		return oci.ErrRefused
	case "MANIFEST_INVALID", "MANIFEST_UNVERIFIED", "SIZE_INVALID", "NAME_INVALID", "REGISTRY_DISALLOWED_OPERATION":
		if speaksOfImmutable(e.Message) {
			return oci.ErrImmutable
		}
		return oci.ErrRefused
	case "UNSUPPORTED":
		if e.Status == http.StatusMethodNotAllowed {
			return nil
		}
		return oci.ErrUnsupported
	case "DIGEST_INVALID":
		if !isWrite(c) || (c.digest != "" && c.digest.Algorithm() != digest.SHA256) {
			return oci.ErrUnsupported // the algorithm, as far as we can tell
		}
		return oci.ErrMismatch
	case "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID":
		return oci.ErrUploadUnknown
	}
	return nil
}

func kindOfStatus(c *call, e *oci.RegistryError) error {
	switch e.Status {
	case 401, 402, 403, 451:
		return oci.ErrDenied
	case 404:
		switch {
		case isSession(c):
			return oci.ErrUploadUnknown
		case c.op == oci.OpUploadStart, c.op == oci.OpManifestWrite, c.op == oci.OpList:
			return oci.ErrRepositoryUnknown
		}
		return oci.ErrNotFound
	case 405:
		if isWrite(c) && c.method != http.MethodDelete {
			return oci.ErrRefused
		}
		return oci.ErrUnsupported
	case 406, 415, 501:
		return oci.ErrUnsupported
	case 408, 425, 499:
		return oci.ErrInterrupted
	case 409, 412:
		switch {
		case speaksOfImmutable(e.Message):
			return oci.ErrImmutable
		case e.Status == 409:
			return oci.ErrInterrupted // somebody else at the same thing
		}
		return oci.ErrRefused
	case 413:
		return oci.ErrRefused
	case 416:
		if isSession(c) {
			return oci.ErrUploadUnknown
		}
		return oci.ErrUnsupported
	case 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530:
		return oci.ErrUnreachable
	}
	switch {
	case e.Status >= 500:
		return oci.ErrInterrupted
	case e.Status >= 400 && isWrite(c):
		return oci.ErrRefused
	}
	return oci.ErrInvalid
}

func speaksOfImmutable(message string) bool {
	m := strings.ToLower(message)
	for _, word := range []string{"immutable", "cannot be overwritten", "already exists and can"} {
		if strings.Contains(m, word) {
			return true
		}
	}
	return false
}

// refusesForeign: CNCF distribution answers 500 where a manifest's foreign
// layers have no URL, or one that its config does not allow (distribution v3,
// registry/storage: errMissingURL, errInvalidURL).
func refusesForeign(c *call, e *oci.RegistryError) bool {
	return c.op == oci.OpManifestWrite && e.Status == http.StatusInternalServerError &&
		(strings.Contains(e.Message, "invalid URL on layer") || strings.Contains(e.Message, "missing URL on layer"))
}

func hintFor(c *call, e *oci.RegistryError) string {
	switch {
	case refusesForeign(c, e) && strings.Contains(e.Message, "missing"):
		return "the image's foreign layers name no URL, which this registry wants; leave the image out, or push it with its layers"
	case refusesForeign(c, e):
		return "allow the URLs of its foreign layers in the registry's config (validation.manifests.urls.allow), or leave the image out"
	case e.Status == http.StatusUnauthorized, c.op == oci.OpToken && errors.Is(e.Kind, oci.ErrDenied):
		return "check auth of this registry in the config, or docker's config"
	case errors.Is(e.Kind, oci.ErrDenied) && c.op == oci.OpDelete:
		return "give the account the right to delete there"
	case errors.Is(e.Kind, oci.ErrDenied) && isWrite(c):
		return "give the account the right to push there"
	case errors.Is(e.Kind, oci.ErrDenied):
		return "give the account the right to pull there"
	case errors.Is(e.Kind, oci.ErrRepositoryUnknown) && isWrite(c):
		return "create the repository or project at the registry"
	case errors.Is(e.Kind, oci.ErrImmutable):
		return "the registry forbids moving this tag; exempt it there or leave it out by tags.exclude"
	case errors.Is(e.Kind, oci.ErrRefused) && e.Status == http.StatusMethodNotAllowed:
		return "the registry seems to be read-only"
	case errors.Is(e.Kind, oci.ErrRefused) && (e.Status == http.StatusRequestEntityTooLarge || e.Code == "SIZE_INVALID"):
		return "raise the size limit of the registry or of the proxy before it"
	case e.Status == http.StatusInsufficientStorage:
		return "the registry's storage is full"
	case errors.Is(e.Kind, oci.ErrUnsupported) && c.digest != "" && c.digest.Algorithm() != digest.SHA256 && e.Code == "DIGEST_INVALID":
		return "the registry does not take " + c.digest.Algorithm().String() + " digests"
	}
	return ""
}
