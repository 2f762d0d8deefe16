// Package dockerhub is the client of Docker Hub, and reads its webhooks.
package dockerhub

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// hosts are Docker Hub's names, the first the one it is known by in identities
// and in docker's config.
var hosts = []string{"index.docker.io", "docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"}

// New gives a client; every request goes through rt. A host that is none of
// Docker Hub's is taken for one that stands in for all of them.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	if spec.Auth.Token != nil {
		return nil, fmt.Errorf("registry %s: Docker Hub takes no bare token: give the user or organization as username and the token as password: %w", spec.Name, oci.ErrInvalid)
	}
	host, ours := strings.TrimSuffix(strings.ToLower(spec.Host), ":443"), false
	if slices.Contains(hosts, host) {
		spec.Host, ours = hosts[0], true
	}
	if rt != nil {
		rt = newAllowance(rt)
	}
	h := &hub{}
	r, err := generic.NewWith(spec, rt, generic.Ways{
		Name: officialName, Tags: h.tags, DeleteTag: h.deleteTag, DropsUntagged: true, Repositories: noCatalog, Classify: classify,
	})
	if err != nil {
		return nil, err
	}
	h.base = r.Address()
	if ours {
		h.base = &url.URL{Scheme: "https", Host: "hub.docker.com"}
	}
	return r, nil
}

// officialName: names of one part are those of the official images.
func officialName(name string) string {
	if name == "" || strings.Contains(name, "/") {
		return name
	}
	return "library/" + name
}

func noCatalog(context.Context, *generic.Registry) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		yield("", &oci.RegistryError{
			Operation: "list repositories", Message: "Docker Hub has no catalog", Kind: oci.ErrUnlistable,
			Hint: "name the repositories literally under repositories.include",
		})
	}
}

func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	push := op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
	switch {
	case push && strings.Contains(message, "immutable"):
		err.Kind = oci.ErrImmutable
		err.Hint = "the repository's settings make this tag immutable; change them or leave the tag out by tags.exclude"
	case strings.Contains(message, "private repositories"), err.Status == http.StatusPaymentRequired:
		err.Kind = oci.ErrRefused
		err.Hint = "the plan's private repositories are used up; make the repository by hand as a public one, or raise the plan"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = "log in with a personal access token that may read, write and delete"
	case op == oci.OpToken:
		err.Kind = oci.ErrDenied
		err.Hint = "check username and password; with two-factor authentication the password is a personal access token, for an organization its name with an organization access token"
	case push:
		err.Kind = oci.ErrDenied
		err.Hint = "the token needs Read & Write, its user write access to the repository, and the namespace has to exist"
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "the repository does not exist or is private: check its name, and give the token's user access"
	}
}
