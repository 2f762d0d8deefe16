package plan

import (
	"slices"

	"github.com/twinport/twinport/replicator"
)

// Flow tells how a source repository's tag and its twin at one of the route's
// destinations stand to each other.
func (r *Rules) Flow(route, destination, repository, tag string) replicator.Flow {
	ru := r.byName[route]
	if ru == nil {
		return replicator.OneWay
	}
	target, err := ru.destination(repository)
	if err != nil {
		return replicator.OneWay
	}
	flows := flowFinder{rules: r, tag: tag}
	return flows.flow(node{ru.From, repository}, node{destination, target})
}

// Sharing are the other routes that want the tag at the destination: those that
// would write it there from the same repository, or from one of the same name
// as either end.
func (r *Rules) Sharing(route string, source, destination replicator.Place, tag string) []string {
	var names []string
	for _, ru := range r.routes {
		if ru.Name == route || !slices.ContainsFunc(ru.To, func(to string) bool { return r.same(to, destination) }) {
			continue
		}
		if ok, _ := ru.selectsTag(tag); !ok {
			continue
		}
		candidates := []string{source.Repository, destination.Repository}
		if literals, ok := ru.repositories.literals(); ok {
			candidates = append(candidates, literals...)
		}
		if slices.ContainsFunc(candidates, func(repository string) bool { return ru.writes(repository, destination.Repository) }) {
			names = append(names, ru.Name)
		}
	}
	return names
}

// writes tells whether the route brings a source repository to a name.
func (ru *rule) writes(repository, target string) bool {
	if ok, _ := ru.selects(repository); !ok {
		return false
	}
	name, err := ru.destination(repository)
	return err == nil && name == target
}
