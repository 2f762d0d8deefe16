package ecr

import (
	"context"
	"errors"
	"sync"

	"github.com/twinport/twinport/replicator/oci"
)

// maxArchived bounds what is kept of one repository's archived images, by tag
// and by digest, and maxArchives the repositories.
const (
	maxArchived = 20_000
	maxArchives = 1_000
)

// An archive is what listings told as archived: to a GET of theirs ECR answers
// 404 (user guide, "Archiving an image"), as if they were gone.
type archive struct {
	mu sync.Mutex
	of map[string]map[string]bool // by repository and reference
}

// note adds one image to what a listing under way has found.
func note(archived map[string]bool, digest string, tags []string) {
	if len(archived)+len(tags) >= maxArchived {
		return
	}
	archived[digest] = true
	for _, tag := range tags {
		archived[tag] = true
	}
}

// keep takes what a complete listing has found.
func (a *archive) keep(repository string, archived map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = make(map[string]map[string]bool)
	}
	delete(a.of, repository)
	if len(archived) > 0 && len(a.of) < maxArchives {
		a.of[repository] = archived
	}
}

func (a *archive) has(repository, reference string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of[repository][reference]
}

// FetchManifest reads a manifest. One of an archived image is refused, not
// missing: what is gone at a source may be taken away from its twins. (Resolve
// keeps ECR's 404: a push under that tag or digest restores the image.)
func (p *Repository) FetchManifest(ctx context.Context, reference string) (oci.Manifest, error) {
	m, err := p.Repository.FetchManifest(ctx, reference)
	if errors.Is(err, oci.ErrNotFound) && p.reg.archive.has(p.FullName(), reference) {
		err = &oci.RegistryError{
			Registry: p.reg.name, Operation: "GET manifest " + p.FullName() + ":" + reference, Kind: oci.ErrRefused,
			Message: "the image is archived", Hint: hintArchived,
		}
	}
	return m, err
}

const hintArchived = "restore it by `aws ecr update-image-storage-class`, or leave it out by tags.exclude"
