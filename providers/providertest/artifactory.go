package providertest

import (
	"net/http"
	"slices"
	"strings"
)

// An Artifactory stands before a Fake: local repositories have to exist, each
// with a catalog of its own; tag lists hold digests; moving a tag is a right.
type Artifactory struct {
	*Fake
	// Keys are the local repositories.
	Keys []string
	// NoOverwrite: the account may not move tags.
	NoOverwrite bool
}

// ServeHTTP serves /v2/, /token and /artifactory/api/docker/KEY/v2/_catalog.
func (a *Artifactory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if key, ok := strings.CutPrefix(r.URL.Path, "/artifactory/api/docker/"); ok {
		a.note(r)
		a.keyCatalog(w, r, strings.TrimSuffix(key, "/v2/_catalog"))
		return
	}
	if folder, ok := strings.CutPrefix(r.URL.Path, "/artifactory/"); ok && r.Method == http.MethodDelete {
		a.note(r)
		a.deleteFolder(w, r, folder)
		return
	}
	repo, _, _, writing := writes(r)
	key, _, _ := strings.Cut(repo, "/")
	_, _, moving := a.moves(r)
	switch {
	case r.URL.Path == "/v2/_catalog":
		a.note(r)
		http.NotFound(w, r)
	case writing && !slices.Contains(a.Keys, key):
		a.note(r)
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", "Repository "+key+" does not exist")
	case moving && a.NoOverwrite:
		a.note(r)
		Fail(w, http.StatusForbidden, "DENIED", "Not enough permissions to delete/overwrite artifact '"+repo+"'")
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tags/list"):
		hex := strings.Repeat("ab", 32)
		addTags(w, r, a.Fake, "sha256:"+hex, "sha256__"+hex)
	default:
		a.Fake.ServeHTTP(w, r)
	}
}

// deleteFolder removes what a path names: a tag, whose manifest lies in it.
func (a *Artifactory) deleteFolder(w http.ResponseWriter, r *http.Request, folder string) {
	at := strings.LastIndexByte(folder, '/')
	switch {
	case !a.basic(r):
		answer(w, http.StatusUnauthorized, map[string]any{"errors": []map[string]any{{"status": 401, "message": "Bad credentials"}}})
	case a.NoOverwrite:
		answer(w, http.StatusForbidden, map[string]any{"errors": []map[string]any{{"status": 403, "message": "Not enough permissions to delete/overwrite artifact '" + folder + "'"}}})
	case at < 0 || !a.Untag(folder[:at], folder[at+1:], true):
		answer(w, http.StatusNotFound, map[string]any{"errors": []map[string]any{{"status": 404, "message": "Could not locate artifact '" + folder + "'"}}})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *Artifactory) keyCatalog(w http.ResponseWriter, r *http.Request, key string) {
	if !a.basic(r) {
		answer(w, http.StatusUnauthorized, map[string]any{"errors": []map[string]any{{"status": 401, "message": "Bad credentials"}}})
		return
	}
	var names []string
	for _, name := range a.Repos() {
		if below, ok := strings.CutPrefix(name, key+"/"); ok && below > r.URL.Query().Get("last") {
			names = append(names, below)
		}
	}
	if names == nil {
		names = []string{}
	}
	answer(w, http.StatusOK, map[string]any{"repositories": names[:min(len(names), 1000)]})
}
