package acr

import (
	"errors"
	"net/http"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// What an identity needs, by what it may do. Registries whose role assignments
// have conditions (ABAC) ignore the first name of each pair (Microsoft Learn,
// "Container Registry roles directory reference").
const (
	rolePull    = "AcrPull, or Container Registry Repository Reader where the registry uses ABAC"
	rolePush    = "AcrPush, or Container Registry Repository Writer where the registry uses ABAC"
	roleDelete  = "AcrDelete, or Container Registry Repository Contributor where the registry uses ABAC"
	roleCatalog = "AcrPull, or Container Registry Repository Catalog Lister where the registry uses ABAC; a repository-scoped token can list none: name the repositories under repositories.include"
)

// classify knows ACR's words.
func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	switch {
	case err.Code == "REGISTRY_DISALLOWED_OPERATION" || err.Status == http.StatusMethodNotAllowed && strings.Contains(message, "disallowed"):
		// A lock (changeableAttributes.writeEnabled=false, on the tag or the
		// manifest) answers 405 to writes and deletes alike (Microsoft Learn,
		// "Lock container images"). A locked tag is as good as immutable.
		err.Kind = oci.ErrRefused
		if op == oci.OpManifestWrite {
			err.Kind = oci.ErrImmutable
		}
		err.Hint = "the tag, image or repository is locked; unlock it with `az acr repository update --name REGISTRY --image REPOSITORY:TAG --write-enabled true`, or leave it out by tags.exclude"
	case err.Status == http.StatusForbidden && strings.Contains(message, "is not allowed access"):
		err.Kind = oci.ErrDenied
		err.Hint = "the registry's firewall does not let this address in: add it to the network rules, or use a private endpoint"
	case strings.Contains(message, "quarantine"):
		err.Kind = oci.ErrDenied
		err.Hint = "the image is in quarantine until its scan has passed; AcrQuarantineReader may pull it before"
	case errors.Is(err.Kind, oci.ErrDenied):
		err.Hint = "give the identity the role " + roleFor(op)
	}
}

func roleFor(op oci.Operation) string {
	switch op {
	case oci.OpManifestWrite, oci.OpBlobWrite, oci.OpUploadStart:
		return rolePush
	case oci.OpDelete:
		return roleDelete
	case oci.OpList:
		return roleCatalog
	}
	return rolePull
}
