package providertest

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Deletes is what becomes of a DELETE of a manifest at a Fake.
type Deletes int

const (
	// DeletesTags removes a tag alone by its name, a manifest with all its tags by
	// its digest (distribution-spec, "Content Management").
	DeletesTags Deletes = iota
	// DeletesLast is DeletesTags, but a manifest goes with the last of its tags.
	DeletesLast
	// DeletesDigests removes what is named with all its tags, also by a tag.
	DeletesDigests
	// DeletesNoTags refuses a tag, which is no digest (distribution before version 3).
	DeletesNoTags
	// DeletesNothing has deletes switched off.
	DeletesNothing
)

func (f *Fake) deleteManifest(w http.ResponseWriter, name, reference string) {
	byTag := !strings.Contains(reference, ":")
	switch {
	case f.Deletes == DeletesNothing:
		Fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
	case f.Deletes == DeletesNoTags && byTag:
		Fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
	case f.repos[name] == nil:
		Fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	case !f.remove(name, reference, f.Deletes):
		Fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// Untag removes a tag as a registry's own API does, and tells whether there was
// one; last: its manifest goes with the last of its tags.
func (f *Fake) Untag(repo, tag string, last bool) bool {
	if f.Upstream != nil {
		return f.ask(http.MethodDelete, "/v2/"+repo+"/manifests/"+tag, nil).Code == http.StatusAccepted
	}
	how := DeletesTags
	if last {
		how = DeletesLast
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repos[repo] != nil && f.remove(repo, tag, how)
}

// remove holds the lock already.
func (f *Fake) remove(name, reference string, how Deletes) bool {
	repo := f.repo(name)
	d := digest.Digest(reference)
	byTag := !strings.Contains(reference, ":")
	if byTag {
		d = repo.tags[reference]
	}
	if _, there := repo.manifests[d]; !there {
		return false
	}
	left := 0
	for tag, named := range repo.tags {
		switch {
		case named != d:
		case !byTag, tag == reference, how == DeletesDigests:
			delete(repo.tags, tag)
		default:
			left++
		}
	}
	if !byTag || how == DeletesDigests || how == DeletesLast && left == 0 {
		delete(repo.manifests, d)
	}
	return true
}
