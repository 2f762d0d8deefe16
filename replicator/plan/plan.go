// Package plan decides what an event means: which routes want it, and which
// jobs follow. It is pure: no I/O and no clock, and every "no" carries its
// reason in words an operator understands.
package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A Route is one source, its destinations, and what of it is wanted there.
type Route struct {
	Name string
	// From and To are names of Registries.
	From         string
	To           []string
	Repositories Filter
	Tags         TagFilter
	// Rename makes the destination's repository name of the source's:
	// {repository} {namespace} {name} {registry} {flat}. Empty: the same name.
	Rename string
	// Referrers is "true" (or empty), "required" or "false".
	Referrers string
	// Untagged: manifests pushed by digest alone are copied for themselves.
	Untagged bool
	// Drift is "keep" (or empty) or "overwrite"; Conflict is "ask" (or empty),
	// "newest" or "prefer", and then Prefer is the registry's name.
	Drift, Conflict, Prefer string
	Deletes                 Deletes
	// RPO 0: none promised. Sweep 0: never. Proof 0: a proof does not age.
	RPO, Sweep, Proof time.Duration
	// SourceGone is how long the source has to be silent before what it had is
	// read from destinations that proved it; 0: never.
	SourceGone     time.Duration
	Owner, Contact string
}

// Deletes says what becomes of a tag that is gone at the source; the zero value
// keeps it.
type Deletes struct {
	// Mirror removes it, once it has been gone for Grace, where no more are due
	// than AtMost (0 to 1) of the route's proven tags at a destination.
	Mirror bool
	Grace  time.Duration
	AtMost float64
}

// A Filter selects repositories by globs in which ** crosses slashes; no
// Include means all, and Exclude has the last word.
type Filter struct{ Include, Exclude []string }

// A TagFilter selects tags: globs first, then Semver, then MaxAge, then the
// Newest of each repository. Zero values select all.
type TagFilter struct {
	Include, Exclude []string
	Semver           string
	MaxAge           time.Duration
	Newest           int
}

// A Registry is one of the config's.
type Registry struct{ Name, Identity string }

// Rules are compiled routes. They never change and may be used by many
// goroutines at once.
type Rules struct {
	routes   []*rule
	byName   map[string]*rule
	bySource map[string][]*rule
	// identities is each registry's canonical address by its name, and names
	// the way back: two entries of a config may be one registry.
	identities map[string]string
	names      map[string][]string
	// reaches says where content that arrived at a registry can go on to.
	reaches map[string]map[string]bool
}

// A rule is a Route made ready to be asked.
type rule struct {
	Route
	repositories globs
	tags         globs
	semver       *semver.Constraints
	rename       rename
}

// New compiles routes. All their faults are told at once.
func New(routes []Route, registries []Registry) (*Rules, error) {
	r := &Rules{
		byName:     make(map[string]*rule, len(routes)),
		bySource:   make(map[string][]*rule),
		identities: make(map[string]string, len(registries)),
		names:      make(map[string][]string, len(registries)),
	}
	var faults []error
	for _, registry := range registries {
		if registry.Name == "" {
			faults = append(faults, errors.New("a registry has no name"))
			continue
		}
		if _, twice := r.identities[registry.Name]; twice {
			faults = append(faults, fmt.Errorf("registry %s: named twice", registry.Name))
			continue
		}
		r.identities[registry.Name] = registry.Identity
		if registry.Identity != "" {
			r.names[registry.Identity] = append(r.names[registry.Identity], registry.Name)
		}
	}
	for _, route := range routes {
		ru, err := r.compile(route)
		if err != nil {
			faults = append(faults, fmt.Errorf("route %s: %w", route.Name, err))
			continue
		}
		r.routes = append(r.routes, ru)
		r.byName[route.Name] = ru
		r.bySource[route.From] = append(r.bySource[route.From], ru)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	r.reaches = r.reach()
	return r, nil
}

func (r *Rules) compile(route Route) (*rule, error) {
	route = clone(route)
	ru := &rule{Route: route}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if route.Name == "" {
		fault("it has no name")
	} else if r.byName[route.Name] != nil {
		fault("named twice")
	}
	if _, known := r.identities[route.From]; !known {
		fault("from: no registry %q", route.From)
	}
	if len(route.To) == 0 {
		fault("to: no destination")
	}
	for i, to := range route.To {
		if _, known := r.identities[to]; !known {
			fault("to: no registry %q", to)
		}
		if slices.Contains(route.To[:i], to) {
			fault("to: %s is named twice", to)
		}
	}
	check := func(key, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			fault("%s: %q is none of %s", key, value, strings.Join(allowed, ", "))
		}
	}
	check("referrers", route.Referrers, "true", "required", "false")
	check("drift", route.Drift, "keep", "overwrite")
	check("conflict", route.Conflict, "ask", "newest", "prefer")
	if route.Tags.Newest < 0 {
		fault("tags.newest: %d is negative", route.Tags.Newest)
	}
	if route.Tags.MaxAge < 0 {
		fault("tags.maxAge: %s is negative", route.Tags.MaxAge)
	}
	var err error
	if ru.repositories, err = compileGlobs(route.Repositories.Include, route.Repositories.Exclude, true); err != nil {
		fault("repositories: %w", err)
	}
	if ru.tags, err = compileGlobs(route.Tags.Include, route.Tags.Exclude, false); err != nil {
		fault("tags: %w", err)
	}
	if route.Tags.Semver != "" {
		if ru.semver, err = semver.NewConstraint(route.Tags.Semver); err != nil {
			fault("tags.semver: %q: %w", route.Tags.Semver, err)
		}
	}
	if ru.rename, err = compileRename(route.Rename, route.From); err != nil {
		fault("rename: %w", err)
	} else if literals, ok := ru.repositories.literals(); !ru.rename.varies && (!ok || len(literals) > 1) {
		fault("rename: %q gives many repositories one name; it needs {repository}, {name} or {flat}", route.Rename)
	}
	return ru, errors.Join(faults...)
}

// clone keeps a Route from being changed under us, or by those we hand it to.
func clone(route Route) Route {
	route.To = slices.Clone(route.To)
	for _, list := range []*[]string{
		&route.Repositories.Include, &route.Repositories.Exclude,
		&route.Tags.Include, &route.Tags.Exclude,
	} {
		*list = slices.Clone(*list)
	}
	return route
}

// Route gives a route by its name.
func (r *Rules) Route(name string) (Route, bool) {
	ru := r.byName[name]
	if ru == nil {
		return Route{}, false
	}
	return clone(ru.Route), true
}

// Routes gives all routes, in the order New got them.
func (r *Rules) Routes() []Route {
	routes := make([]Route, len(r.routes))
	for i, ru := range r.routes {
		routes[i] = clone(ru.Route)
	}
	return routes
}

// Destination is the name a route gives to a source repository at its
// destinations. A name that no registry would take gives oci.ErrInvalid.
func (r *Rules) Destination(route, repository string) (string, error) {
	ru := r.byName[route]
	if ru == nil {
		return "", noRoute(route)
	}
	return ru.destination(repository)
}

func (ru *rule) destination(repository string) (string, error) {
	name, err := ru.rename.apply(repository)
	if err != nil {
		return "", fmt.Errorf("rename %s by route %s: %w", repository, ru.Name, err)
	}
	return name, nil
}

// Selects tells whether a route wants a source repository, and if not, why.
func (r *Rules) Selects(route, repository string) (bool, string) {
	ru := r.byName[route]
	if ru == nil {
		return false, noRoute(route).Error()
	}
	return ru.selects(repository)
}

func (ru *rule) selects(repository string) (bool, string) {
	included, excludedBy := ru.repositories.match(repository)
	switch {
	case !included:
		return false, "repository " + repository + " is not included by route " + ru.Name + " (" + ru.repositories.shown + ")"
	case excludedBy != "":
		return false, "repository " + repository + " is excluded by " + excludedBy + " of route " + ru.Name
	}
	return true, ""
}

// SelectsTag tells whether a route wants a tag by its name, and if not, why.
// Tags that travel with a subject pass whatever the filter says, unless the
// route carries no referrers. Age is SelectTags' to judge.
func (r *Rules) SelectsTag(route, tag string) (bool, string) {
	ru := r.byName[route]
	if ru == nil {
		return false, noRoute(route).Error()
	}
	return ru.selectsTag(tag)
}

func (ru *rule) selectsTag(tag string) (bool, string) {
	if _, _, companion := oci.CompanionSubject(tag); companion {
		if ru.Referrers == "false" {
			return false, "tag " + tag + " belongs to a subject and route " + ru.Name + " carries no referrers (referrers: false)"
		}
		return true, ""
	}
	if oci.IsProbe(tag) {
		return false, "tag " + tag + " was pushed by twinport check to try whether it may, and is gone soon"
	}
	included, excludedBy := ru.tags.match(tag)
	switch {
	case !included:
		return false, "tag " + tag + " is not included by route " + ru.Name + " (" + ru.tags.shown + ")"
	case excludedBy != "":
		return false, "tag " + tag + " is excluded by " + excludedBy + " of route " + ru.Name
	case ru.semver == nil:
		return true, ""
	}
	return ru.selectsVersion(tag)
}

// LiteralRepositories gives the repositories a route names, sorted and without
// the excluded ones, where all its includes are names and not patterns: such a
// route needs no catalog.
func (r *Rules) LiteralRepositories(route string) ([]string, bool) {
	ru := r.byName[route]
	if ru == nil {
		return nil, false
	}
	literals, ok := ru.repositories.literals()
	if !ok {
		return nil, false
	}
	return slices.DeleteFunc(literals, func(name string) bool {
		_, excludedBy := ru.repositories.match(name)
		return excludedBy != ""
	}), true
}

// Owns tells whether some route still brings the source repository to the
// destination repository. Registries are compared by identity where a Place
// has one, so that a renamed entry of the config still owns what it wrote.
func (r *Rules) Owns(source, destination replicator.Place) bool {
	for _, from := range r.namesOf(source) {
		for _, ru := range r.bySource[from] {
			if !slices.ContainsFunc(ru.To, func(to string) bool { return r.same(to, destination) }) {
				continue
			}
			if ok, _ := ru.selects(source.Repository); !ok {
				continue
			}
			if name, err := ru.destination(source.Repository); err == nil && name == destination.Repository {
				return true
			}
		}
	}
	return false
}

func (r *Rules) namesOf(place replicator.Place) []string {
	if place.Identity != "" {
		return r.names[place.Identity]
	}
	return []string{place.Registry}
}

func (r *Rules) same(name string, place replicator.Place) bool {
	if place.Identity != "" {
		return r.identities[name] == place.Identity
	}
	return name == place.Registry
}

func noRoute(name string) error { return fmt.Errorf("no route %q", name) }
