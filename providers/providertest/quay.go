package providertest

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// A Quay stands before a Fake with Tokens: its realm refuses scopes it cannot
// read, its API lets in OAuth2 tokens and, where Public, everybody.
type Quay struct {
	*Fake
	Public bool
	// ReadOnly refuses every change, Full every upload.
	ReadOnly, Full bool
}

var (
	quayScope = regexp.MustCompile(`^repository:[a-z0-9._/-]+:(pull|push|pull,push|push,pull)$`)
	quayTags  = regexp.MustCompile(`^/api/v1/repository/(.+)/tag/$`)
)

// ServeHTTP serves /v2/, /token and the tag lists of /api/v1/.
func (q *Quay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if parts := quayTags.FindStringSubmatch(r.URL.Path); parts != nil {
		q.note(r)
		q.tags(w, r, parts[1])
		return
	}
	repo, what, reference, writing := writes(r)
	switch {
	case r.URL.Path == "/token":
		for _, scope := range r.URL.Query()["scope"] {
			if !quayScope.MatchString(scope) {
				q.note(r)
				answer(w, http.StatusBadRequest, map[string]string{"error": "Unable to decode repository and actions: " + scope})
				return
			}
		}
		q.Fake.ServeHTTP(w, r)
	case r.URL.Path == "/v2/_catalog" && q.bearer(r):
		q.note(r)
		q.catalog(w, r)
	case writing && what == "manifests" && r.Method == http.MethodDelete && q.bearer(r) && (q.denies("delete") || q.denies("push")):
		q.note(r) // who may write may delete: its realm knows no such action
		Fail(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	case writing && what == "manifests" && r.Method == http.MethodDelete && q.bearer(r) && !q.ReadOnly && !q.Immutable:
		q.note(r)
		if q.Upstream != nil {
			q.pass(w, r, repo, what, reference)
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.deleteManifest(w, repo, reference)
	case writing && what == "manifests" && r.Method == http.MethodDelete && q.bearer(r) && q.Immutable:
		q.note(r)
		Fail(w, http.StatusConflict, "TAG_IMMUTABLE", "tag '"+reference+"' is immutable")
	case writing && q.ReadOnly:
		Fail(w, http.StatusMethodNotAllowed, "DENIED", "System is currently read-only. Pulls will succeed but all write operations are currently suspended.")
	case writing && q.Full && what == "blobs/uploads":
		Fail(w, http.StatusForbidden, "DENIED", "Quota has been exceeded on namespace")
	default:
		q.Fake.ServeHTTP(w, r)
	}
}

func (q *Quay) tags(w http.ResponseWriter, r *http.Request, repo string) {
	oauth := q.Username == "$oauthtoken" && r.Header.Get("Authorization") == "Bearer "+q.Password
	lines, exists := q.Inventory(repo)
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	size, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	switch {
	case !q.Public && !oauth:
		answer(w, http.StatusUnauthorized, map[string]string{"error_message": "Requires authentication"})
		return
	case strings.HasPrefix(r.Header.Get("Authorization"), "Basic "):
		answer(w, http.StatusUnauthorized, map[string]string{"error_message": "Invalid bearer token format"})
		return
	case !exists:
		answer(w, http.StatusNotFound, map[string]string{"error_message": "Not Found"})
		return
	}
	type tag struct {
		Name   string `json:"name"`
		Digest string `json:"manifest_digest"`
		Start  int64  `json:"start_ts"`
		End    int64  `json:"end_ts,omitempty"`
	}
	list := []tag{}
	for _, line := range lines {
		list = append(list, tag{line.Tag, line.Digest.String(), Pushed.Unix(), 0})
	}
	cut, more := page(list, n, min(size, 100))
	answer(w, http.StatusOK, map[string]any{"tags": cut, "page": n, "has_additional": more})
}
