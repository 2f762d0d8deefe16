// Package providers opens a client for a registry of any kind that is built.
package providers

import (
	"fmt"
	"net/http"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/harbor"
	"github.com/twinport/twinport/providers/zot"
	"github.com/twinport/twinport/replicator/oci"
)

// Open gives the client for a registry of spec.Kind. Every request it makes,
// those for tokens too, goes through rt.
func Open(spec generic.Spec, rt http.RoundTripper) (oci.Registry, error) {
	var (
		registry *generic.Registry
		err      error
	)
	switch spec.Kind {
	case "oci", "":
		registry, err = generic.New(spec, rt)
	case "zot":
		registry, err = zot.New(spec, rt)
	case "harbor":
		registry, err = harbor.New(spec, rt)
	case "quay", "ghcr", "dockerhub", "artifactory", "gitlab", "gitea", "nexus", "ecr", "ecr-public", "acr", "gcr":
		return nil, fmt.Errorf("registry %s: kind %s is not yet built; built are oci, zot and harbor", spec.Name, spec.Kind)
	default:
		return nil, fmt.Errorf("registry %s: no kind %.40q", spec.Name, spec.Kind)
	}
	if err != nil {
		return nil, err
	}
	return registry, nil
}
