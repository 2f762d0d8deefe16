package gcr

import (
	"fmt"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// A place is a repository of Artifact Registry and an image's path in it.
type place struct {
	project, location, repository string
	image                         string // empty: the repository itself
}

// gcrLocations are where the repositories of the gcr.io domains live
// (Artifact Registry, "Repositories with gcr.io domain support").
var gcrLocations = map[string]string{"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe", "asia.gcr.io": "asia"}

// placeOf takes a full name (PROJECT/REPOSITORY/IMAGE, at a gcr.io domain
// PROJECT/IMAGE) apart. A project that belongs to a domain is written
// DOMAIN/PROJECT in names and DOMAIN:PROJECT elsewhere.
func placeOf(host, full string) (place, bool) {
	project, rest, _ := strings.Cut(full, "/")
	if strings.Contains(project, ".") {
		var id string
		id, rest, _ = strings.Cut(rest, "/")
		if id == "" {
			return place{}, false
		}
		project += ":" + id
	}
	at := place{project: project}
	if project == "" {
		return place{}, false
	}
	if location, ok := gcrLocations[host]; ok {
		at.location, at.repository, at.image = location, host, rest
		return at, true
	}
	at.location = strings.TrimSuffix(strings.TrimSuffix(host, ".pkg.dev"), "-docker")
	at.repository, at.image, _ = strings.Cut(rest, "/")
	return at, true
}

// parent is the repository's name in the REST API.
func (at place) parent() string {
	return "projects/" + at.project + "/locations/" + at.location + "/repositories/" + at.repository
}

// command makes the repository.
func (at place) command() string {
	return fmt.Sprintf("gcloud artifacts repositories create %s --repository-format=docker --location=%s --project=%s", at.repository, at.location, at.project)
}

// place is where the image is, or why its name cannot be one: that is told
// before the first byte is sent.
func (p *Repository) place() (place, error) {
	full := p.FullName()
	if err := oci.CheckRepository(full); err != nil {
		return place{}, err
	}
	at, ok := placeOf(p.registry.host, full)
	if ok && at.repository != "" && at.image != "" {
		return at, nil
	}
	form := "PROJECT/REPOSITORY/IMAGE"
	if _, gcr := gcrLocations[p.registry.host]; gcr {
		form = "PROJECT/IMAGE"
	}
	return place{}, p.registry.Fault(oci.RegistryError{
		Operation: "push to " + full, Kind: oci.ErrRefused, Message: "names at " + p.registry.host + " are " + form,
		Hint: "put project and repository into the registry's address, or bring them in by the route's rename",
	})
}
