package providertest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Deny takes rights away from the account: pull, push, delete, catalog. What is
// not named is given back.
func (f *Fake) Deny(actions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = actions
}

// action is the right that a request needs, empty where it needs none.
func action(r *http.Request, parts []string) string {
	switch {
	case r.URL.Path == "/v2/_catalog":
		return "catalog"
	case parts == nil:
		return ""
	case isErase(r, parts):
		return "delete"
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return "pull"
	}
	return "push"
}

// isErase: a session's end is a push's.
func isErase(r *http.Request, parts []string) bool {
	return r.Method == http.MethodDelete && parts != nil && (parts[2] == "manifests" || parts[2] == "blobs")
}

func (f *Fake) denies(action string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return action != "" && slices.Contains(f.denied, action)
}

// holds tells whether a repository has a manifest, tagged or not.
func (f *Fake) holds(name string) bool {
	if f.Upstream != nil {
		return len(f.Tags(name)) > 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repos[name] != nil && len(f.repos[name].manifests) > 0
}

// erase deletes as distribution does: a tag alone, a manifest with its tags, a
// blob from its repository.
func (f *Fake) erase(w http.ResponseWriter, r *http.Request, name, what, reference string) {
	switch {
	case f.NoDelete:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
		return
	case f.Upstream != nil:
		f.pass(w, r, name, what, reference)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	repo := f.repos[name]
	if repo == nil {
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	d, there := digest.Digest(reference), false
	switch {
	case what == "blobs":
		_, there = repo.blobs[d]
		delete(repo.blobs, d)
	case strings.Contains(reference, ":"):
		_, there = repo.manifests[d]
		delete(repo.manifests, d)
		for tag, named := range repo.tags {
			if named == d {
				delete(repo.tags, tag)
			}
		}
	default:
		_, there = repo.tags[reference]
		delete(repo.tags, reference)
	}
	if !there {
		code := "MANIFEST_UNKNOWN"
		if what == "blobs" {
			code = "BLOB_UNKNOWN"
		}
		Fail(w, http.StatusNotFound, code, "unknown to registry")
		return
	}
	w.WriteHeader(http.StatusAccepted)
}
