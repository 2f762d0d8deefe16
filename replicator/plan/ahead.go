package plan

import "github.com/twinport/twinport/replicator"

// An Ahead is where a blob goes before the manifest that names it has come.
type Ahead struct {
	Route               string
	Source, Destination replicator.Place
}

// Ahead decides where a blob that was pushed to a source is surely going to be
// wanted: by routes that take its repository and every tag there, and not at
// registries whose own pushes come back. Each destination is named once.
func (r *Rules) Ahead(blob replicator.Blob) []Ahead {
	source := replicator.Place{Registry: blob.Registry, Identity: r.identities[blob.Registry], Repository: blob.Repository}
	var ways []Ahead
	known := make(map[end]bool)
	for _, ru := range r.bySource[blob.Registry] {
		if ok, _ := ru.selects(blob.Repository); !ok || !ru.tags.all() || ru.semver != nil {
			continue
		}
		repository, err := ru.destination(blob.Repository)
		if err != nil {
			continue
		}
		for _, to := range ru.To {
			destination := replicator.Place{Registry: to, Identity: r.identities[to], Repository: repository}
			if known[endOf(destination)] || isSame(source, destination) || r.reaches[to][blob.Registry] {
				continue
			}
			known[endOf(destination)] = true
			ways = append(ways, Ahead{Route: ru.Name, Source: source, Destination: destination})
		}
	}
	return ways
}
