package gcr

import (
	"errors"
	"net/http"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// roles are what gives a permission that a refusal names (IAM, "Artifact
// Registry roles"); the first that is found in the message counts.
var roles = []struct{ permission, role string }{
	{"artifactregistry.repositories.createonpush", "roles/artifactregistry.createOnPushWriter"},
	{"artifactregistry.repositories.uploadartifacts", "roles/artifactregistry.writer"},
	{"artifactregistry.repositories.downloadartifacts", "roles/artifactregistry.reader"},
	{"artifactregistry.repositories.deleteartifacts", "roles/artifactregistry.repoAdmin"},
	{"artifactregistry.repositories.create", "roles/artifactregistry.admin"},
	{"artifactregistry.tags.delete", "roles/artifactregistry.repoAdmin"},
	{"artifactregistry.versions.delete", "roles/artifactregistry.repoAdmin"},
	{"artifactregistry.tags.", "roles/artifactregistry.writer"},
	{"artifactregistry.", "roles/artifactregistry.reader"},
}

// classify knows Google's words.
func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	switch {
	case (op == oci.OpManifestWrite || op == oci.OpDelete) && err.Status < 500 && strings.Contains(message, "immutab"):
		// With immutable tags every move and removal of a tag is refused, `latest` too, with
		// 400 or 409 and a sentence (Artifact Registry, "Immutable tags").
		err.Kind = oci.ErrImmutable
		err.Hint = "the repository has immutable tags; push to one without, or leave the tag out by tags.exclude"
	case err.Code == "NAME_UNKNOWN", err.Status == http.StatusNotFound && strings.Contains(message, "repository") && strings.Contains(message, "not found"):
		// Creating a repository is a separate operation (Artifact Registry, "Push
		// and pull images"): a push into none is 404 with a sentence that names it.
		err.Kind = oci.ErrRepositoryUnknown
	case strings.Contains(message, "has not been used in project"), strings.Contains(message, "api is not enabled"):
		err.Kind = oci.ErrDenied
		err.Hint = "enable the API: `gcloud services enable artifactregistry.googleapis.com`"
	case strings.Contains(message, "billing"):
		err.Kind = oci.ErrDenied
		err.Hint = "the project's billing account is closed or missing"
	case errors.Is(err.Kind, oci.ErrDenied):
		err.Hint = "give the identity " + roleFor(op, message)
		if strings.Contains(message, "may not exist") {
			err.Hint += ", if the repository exists: Google does not say to those who may not see it"
		}
	}
}

func roleFor(op oci.Operation, message string) string {
	for _, r := range roles {
		if strings.Contains(message, r.permission) {
			return r.role
		}
	}
	switch op {
	case oci.OpManifestWrite, oci.OpBlobWrite, oci.OpUploadStart:
		return "roles/artifactregistry.writer"
	case oci.OpDelete:
		return "roles/artifactregistry.repoAdmin"
	case oci.OpCreate:
		return "roles/artifactregistry.admin"
	}
	return "roles/artifactregistry.reader"
}
