// Package providers opens a client for a registry of any kind that is built.
package providers

import (
	"fmt"
	"net/http"

	"github.com/twinport/twinport/providers/acr"
	"github.com/twinport/twinport/providers/artifactory"
	"github.com/twinport/twinport/providers/dockerhub"
	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/ghcr"
	"github.com/twinport/twinport/providers/gitea"
	"github.com/twinport/twinport/providers/gitlab"
	"github.com/twinport/twinport/providers/harbor"
	"github.com/twinport/twinport/providers/nexus"
	"github.com/twinport/twinport/providers/quay"
	"github.com/twinport/twinport/providers/zot"
	"github.com/twinport/twinport/replicator/oci"
)

// Open gives the client for a registry of spec.Kind. Every request it makes,
// those for tokens too, goes through rt.
func Open(spec generic.Spec, rt http.RoundTripper) (oci.Registry, error) {
	switch spec.Kind {
	case "oci", "":
		return opened(generic.New(spec, rt))
	case "zot":
		return opened(zot.New(spec, rt))
	case "harbor":
		return opened(harbor.New(spec, rt))
	case "ecr":
		return opened(ecr.New(spec, rt))
	case "ecr-public":
		return opened(ecr.NewPublic(spec, rt))
	case "quay":
		return opened(quay.New(spec, rt))
	case "ghcr":
		return opened(ghcr.New(spec, rt))
	case "dockerhub":
		return opened(dockerhub.New(spec, rt))
	case "gitea":
		return opened(gitea.New(spec, rt))
	case "gitlab":
		return opened(gitlab.New(spec, rt))
	case "nexus":
		return opened(nexus.New(spec, rt))
	case "artifactory":
		return opened(artifactory.New(spec, rt))
	case "acr":
		return opened(acr.New(spec, rt))
	case "gcr":
		return opened(gcr.New(spec, rt))
	}
	return nil, fmt.Errorf("registry %s: no kind %.40q", spec.Name, spec.Kind)
}

// opened keeps a nil client from becoming an interface that is not nil.
func opened[R oci.Registry](registry R, err error) (oci.Registry, error) {
	if err != nil {
		return nil, err
	}
	return registry, nil
}

// Rates are the requests per second of single classes that a kind's provider
// grants; nil: it tells none.
func Rates(kind string) map[oci.Operation]float64 {
	switch kind {
	case "ecr", "ecr-public":
		return ecr.Rates(kind)
	case "acr":
		return acr.Rates
	case "gcr":
		return gcr.Rates
	}
	return nil
}

// Pinned tells whether registries of a kind may be several replicas behind one
// name, so that an image should be pushed to one address alone.
func Pinned(kind string) bool {
	// Layers may land on one replica and their manifest on another: the docs
	// advise to hold DNS still for the length of a push (Microsoft Learn,
	// "Geo-replication in Azure Container Registry").
	return kind == "acr"
}

// Makes tells whether a kind's repositories (or what they lie in) have to be
// made by a call of their own before anything can be pushed.
func Makes(kind string) bool {
	switch kind {
	case "ecr", "ecr-public", "gcr", "harbor":
		return true
	}
	return false
}

// Traceless tells whether an upload that is begun and cancelled in a repository
// that is not there leaves none. zot makes the directory of an image with its
// first upload, GitLab and Quay make the repository when a token to push is
// asked for; of others nobody tells.
func Traceless(kind string) bool {
	switch kind {
	case "oci", "acr", "gcr", "harbor":
		return true
	}
	return false
}

// Signs tells whether a kind's provider refuses requests (AWS) or assertions
// (Google) that were signed by a clock five minutes off.
func Signs(kind string) bool {
	switch kind {
	case "ecr", "ecr-public", "gcr":
		return true
	}
	return false
}

// MountHint is what can be done where a kind grants no mounts; empty: nothing.
func MountHint(kind string) string {
	if kind == "ecr" { // ECR user guide, "Blob mounting": off unless asked for
		return "turn blob mounting on: `aws ecr put-account-setting --name BLOB_MOUNTING --value ENABLED`"
	}
	return ""
}
