package providertest

import (
	"fmt"
	"net/http"
	"strings"
)

// A GHCR stands before a Fake with Tokens: a ranged PATCH carries at most 4 MiB,
// there is no catalog, and the referrers API answers as Referrers says.
type GHCR struct {
	*Fake
	// Referrers is the status of its answers: 303, 404 or 429.
	Referrers int
	// Scopes is what GitHub says of a token that may not push, empty: it may.
	Scopes string
}

// ServeHTTP serves /v2/ and /token.
func (g *GHCR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, what, _, writing := writes(r)
	switch {
	case r.URL.Path == "/v2/_catalog":
		g.note(r)
		http.Error(w, "404 page not found", http.StatusNotFound)
	case strings.Contains(r.URL.Path, "/referrers/"):
		g.note(r)
		switch g.Referrers {
		case http.StatusSeeOther:
			http.Redirect(w, r, "https://github.com/-/v2/packages/container/package/app", http.StatusSeeOther)
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "880µs")
			Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "retry-after: 880µs, allowed: 44000/minute")
		default:
			http.Error(w, "404 page not found", http.StatusNotFound)
		}
	case writing && what == "manifests" && r.Method == http.MethodDelete:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
	case writing && g.Scopes != "":
		Fail(w, http.StatusForbidden, "DENIED", g.Scopes)
	case r.Method == http.MethodPatch && tooWide(r.Header.Get("Content-Range")):
		Fail(w, http.StatusRequestedRangeNotSatisfiable, "REQUESTED_RANGE_NOT_SATISFIABLE", "requested range exceeds the limit of 4.00MiB")
	default:
		g.Fake.ServeHTTP(w, r)
	}
}

func tooWide(contentRange string) bool {
	var first, last int64
	n, err := fmt.Sscanf(contentRange, "%d-%d", &first, &last)
	return err == nil && n == 2 && last-first >= 4<<20
}
