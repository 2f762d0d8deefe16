package providertest

import (
	"net/http"
	"slices"

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

// Left are how many manifests and blobs a repository has, and how many upload
// sessions are open anywhere.
func (f *Fake) Left(repo string) (manifests, blobs, sessions int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.repos[repo]; r != nil {
		manifests, blobs = len(r.manifests), len(r.blobs)
	}
	return manifests, blobs, len(f.uploads)
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

// eraseBlob takes a blob out of its repository, as distribution does.
func (f *Fake) eraseBlob(w http.ResponseWriter, name string, d digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Deletes == DeletesNothing {
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
		return
	}
	repo := f.repos[name]
	if repo == nil || repo.blobs[d] == nil {
		Fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	delete(repo.blobs, d)
	w.WriteHeader(http.StatusAccepted)
}
