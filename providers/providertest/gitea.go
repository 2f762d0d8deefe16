package providertest

import (
	"net/http"
	"slices"
	"strings"
)

// A Gitea stands before a Fake: owners have to exist, and there is no
// referrers API.
type Gitea struct {
	*Fake
	// Owners are the users and organizations.
	Owners []string
	// Full: the owner's quota is used up.
	Full bool
}

// ServeHTTP serves /v2/ and /token.
func (g *Gitea) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, _, _, writing := writes(r)
	owner, _, _ := strings.Cut(repo, "/")
	switch {
	case strings.Contains(r.URL.Path, "/referrers/"):
		g.note(r)
		http.NotFound(w, r)
	case writing && !slices.Contains(g.Owners, owner):
		g.note(r)
		http.Error(w, "Not Found", http.StatusNotFound)
	case writing && g.Full:
		g.note(r)
		Fail(w, http.StatusForbidden, "DENIED", "the package quota of the owner is exceeded")
	default:
		g.Fake.ServeHTTP(w, r)
	}
}
