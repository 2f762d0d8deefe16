package providertest

import (
	"net/http"
	"strings"
)

// A Nexus stands before a Fake: its tag lists hold nulls, its old versions do
// not find manifests by HEAD, and a deployment policy may hold tags.
type Nexus struct {
	*Fake
	// Old: manifests are found by GET alone.
	Old bool
	// NoRedeploy, ReadOnly are the repository's deployment policy.
	NoRedeploy, ReadOnly bool
}

// ServeHTTP serves /v2/ and /token.
func (n *Nexus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, what, _, writing := writes(r)
	_, _, moving := n.moves(r)
	switch {
	case strings.Contains(r.URL.Path, "/referrers/"):
		n.note(r)
		http.NotFound(w, r)
	case n.Old && r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/"):
		n.note(r)
		w.WriteHeader(http.StatusNotFound)
	case writing && n.ReadOnly:
		n.note(r)
		Fail(w, http.StatusForbidden, "DENIED", "Repository is read-only: docker-hosted")
	case writing && what == "manifests" && moving && n.NoRedeploy:
		n.note(r)
		Fail(w, http.StatusBadRequest, "UNKNOWN", "Repository does not allow updating assets: docker-hosted")
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tags/list"):
		addTags(w, r, n.Fake, nil)
	default:
		n.Fake.ServeHTTP(w, r)
	}
}
