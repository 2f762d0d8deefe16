package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// checkRoute looks at one route alone.
func checkRoute(w *walk, path string, into reflect.Value) { checkZone(w, path, into) }

// checkRoutes looks at the routes together: names, then what they write.
func checkRoutes(w *walk, c *Config) {
	names := make([]string, len(c.Registries))
	for i := range c.Registries {
		names[i] = c.Registries[i].Name
	}
	seen := map[string]int{}
	for i := range c.Routes {
		r, path := &c.Routes[i], fmt.Sprintf("routes[%d]", i)
		if first, twice := seen[r.Name]; twice && r.Name != "" {
			w.fault(w.at(path+".name"), "give each route a name of its own", "%s.name: %s is the name of routes[%d] already", path, quote(r.Name), first)
		} else {
			seen[r.Name] = i
		}
		known := w.refers(names, path+".from", r.From)
		for j, to := range r.To {
			at := fmt.Sprintf("%s.to[%d]", path, j)
			known = w.refers(names, at, to) && known
			if to != "" && to == r.From {
				w.fault(w.at(at), "remove it", "%s: %s is the route's own source", at, to)
				known = false
			}
		}
		if p := r.Conflict.Prefer; p != "" && w.refers(names, path+".conflict.prefer", p) && p != r.From && !slices.Contains(r.To, p) {
			w.fault(w.at(path+".conflict.prefer"), "name the route's source or one of its destinations", "%s.conflict.prefer: %s is no end of this route", path, quote(p))
		}
		if known && len(w.faultsBelow(path)) == 0 {
			checkRename(w, r, path)
		}
	}
	if len(w.faults) > 0 {
		// Who writes where can only be told once every route is right.
		if slices.ContainsFunc(w.faults, func(l located) bool {
			return strings.HasPrefix(l.what, "routes") || strings.HasPrefix(l.what, "registries") && strings.Contains(l.what, "address")
		}) {
			return
		}
	}
	t := newTopology(w, c)
	t.collisions()
	t.cycles()
	t.deletions()
}

// refers checks a registry's name.
func (w *walk) refers(names []string, path, name string) bool {
	if name == "" {
		return false // told already
	}
	if slices.Contains(names, name) {
		return true
	}
	w.fault(w.at(path), didYouMean(name, names, "the registries are "+strings.Join(names, ", ")), "%s: no registry %s", path, quote(name))
	return false
}

// faultsBelow are those whose path begins so.
func (w *walk) faultsBelow(path string) (out []located) {
	for _, l := range w.faults {
		if rest, ok := strings.CutPrefix(l.what, path); ok && (rest == "" || strings.ContainsAny(rest[:1], ".:[ ")) {
			out = append(out, l)
		}
	}
	return out
}

// checkRename tries a rename on names that the route takes.
func checkRename(w *walk, r *Route, path string) {
	pieces, what, _ := parseTemplate(r.Rename)
	if what != "" {
		return
	}
	one := len(r.Repositories.Include) == 1 && isLiteral(r.Repositories.Include[0])
	if !distinguishes(pieces) && !one {
		w.fault(w.at(path+".rename"), "use {repository}, {name} or {flat}", "%s.rename: gives one name to many repositories", path)
		return
	}
	s := newSearch()
	for _, shape := range depths {
		l := r.Repositories.takes(repositoryGrammarExpression)
		l.must = append(l.must, shape)
		name, found, _ := s.find(l)
		if !found {
			continue
		}
		if out := fill(pieces, r.From, name); !repositoryGrammar.MatchString(out) || len(out) > 255 {
			hint := "let it give a lower-case name for every repository the route takes"
			if strings.Contains(r.Rename, "{registry}") && strings.ToLower(r.From) != r.From {
				hint = "name the registry in lower case, since {registry} becomes part of repository names"
			}
			w.fault(w.at(path+".rename"), hint, "%s.rename: makes %s of %s, which is no repository name", path, quote(out), quote(name))
			return
		}
	}
}

// depths are names of one to four parts.
var depths = []string{`[^/]+`, `[^/]+/[^/]+`, `[^/]+/[^/]+/[^/]+`, `[^/]+/[^/]+/[^/]+/[^/]+`}

// An edge is one route to one of its destinations.
type edge struct {
	route    *Route
	index    int // of the route
	to       int // index in To
	src, dst *Registry
	pieces   []piece
}

func (e *edge) path() string { return fmt.Sprintf("routes[%d].to[%d]", e.index, e.to) }

func (e *edge) tags() language {
	return Filter{e.route.Tags.Include, e.route.Tags.Exclude}.takes(tagPattern)
}

func (e *edge) writes() language {
	return written(e.route.Repositories, e.pieces, e.src.Name, e.dst.Prefix)
}

type topology struct {
	w     *walk
	c     *Config
	edges []*edge
	*search
	tired bool // the search was given up, and that is told
}

func newTopology(w *walk, c *Config) *topology {
	t := &topology{w: w, c: c, search: newSearch()}
	for i := range c.Routes {
		r := &c.Routes[i]
		pieces, what, _ := parseTemplate(r.Rename)
		src, ok := c.Registry(r.From)
		if what != "" || !ok {
			continue
		}
		for j, name := range r.To {
			if dst, ok := c.Registry(name); ok {
				t.edges = append(t.edges, &edge{route: r, index: i, to: j, src: src, dst: dst, pieces: pieces})
			}
		}
	}
	return t
}

// unsure reports once that the filters are too many to compare.
func (t *topology) unsure(path string) {
	if !t.tired {
		t.tired = true
		t.w.fault(t.w.at(path), "use fewer globs, and globs that begin with different names", "%s: the routes' filters are too many to tell whether two write one name", path)
	}
}

// collisions finds routes that can write one destination name.
func (t *topology) collisions() {
	byHost := map[string][]*edge{}
	for _, e := range t.edges {
		host := canonicalHost(e.dst.Host, e.dst.PlainHTTP)
		for _, f := range byHost[host] {
			t.collision(f, e)
		}
		byHost[host] = append(byHost[host], e)
	}
}

func (t *topology) collision(f, e *edge) {
	same := f.src == e.src && f.dst == e.dst && slices.Equal(f.pieces, e.pieces)
	if same || t.tired {
		return
	}
	name, found, sure := t.find(f.writes().and(e.writes()))
	if !sure {
		t.unsure(e.path())
		return
	}
	if !found {
		return
	}
	if _, found, sure = t.find(f.tags().and(e.tags())); sure && !found {
		return
	}
	who := "routes " + f.route.Name + " and " + e.route.Name
	if f.route == e.route {
		who = "the destinations " + f.dst.Name + " and " + e.dst.Name
	}
	t.w.fault(t.w.at(e.path()), "let their filters exclude one another, or give one of them a rename",
		"%s: %s can both write %s, like %s", e.path(), who, e.dst.Name, quote(strings.TrimPrefix(name, e.dst.Prefix+"/")))
}

// A stop is a repository at a registry, and how a push got there.
type stop struct {
	at   *Registry
	name string
	by   *edge
	from int
}

// maxStops bounds how far one push is followed.
const maxStops = 256

// cycles follows pushes of example names around the routes, and finds those
// that come back to where they began under another name, and would go round
// again.
func (t *topology) cycles() {
	if !slices.ContainsFunc(t.edges, func(e *edge) bool {
		before, after, ok := affixes(e.pieces, e.src.Name)
		return !ok || before+after != "" || slices.ContainsFunc(t.c.Registries, func(r Registry) bool {
			return r.Name != e.dst.Name && r.Host == e.dst.Host
		})
	}) {
		return // every name stays as it is
	}
	told := map[string]bool{}
	hints := t.hints()
	for _, e := range t.edges {
		for _, name := range t.examples(e, hints) {
			if t.follow(e, name, told) {
				break
			}
		}
	}
}

// hints are expressions for names that some route looks at: its globs, as they
// are and without what a rename puts before them.
func (t *topology) hints() []string {
	globs := map[string]bool{}
	for _, e := range t.edges {
		for _, g := range e.route.Repositories.Include {
			globs[g] = true
			for _, f := range t.edges {
				if before, _, _ := affixes(f.pieces, f.src.Name); before != "" {
					if rest, ok := strings.CutPrefix(g, before); ok && rest != "" {
						globs[rest] = true
					}
				}
			}
		}
	}
	out := slices.Clone(depths)
	for g := range globs {
		out = append(out, globExpression(g))
	}
	slices.Sort(out[len(depths):])
	return out[:min(len(out), 200)]
}

// examples are names that an edge takes.
func (t *topology) examples(e *edge, hints []string) []string {
	var out []string
	for _, h := range hints {
		l := e.route.Repositories.takes(repositoryGrammarExpression)
		l.must = append(l.must, h)
		name, found, sure := t.find(l)
		if !sure {
			t.unsure(e.path())
			return out
		}
		if found && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// follow goes where a push goes, beginning with one edge.
func (t *topology) follow(first *edge, name string, told map[string]bool) bool {
	stops := []stop{{at: first.src, name: name, from: -1}}
	seen := map[string]bool{first.src.Name + "/" + name: true}
	for i := 0; i < len(stops) && len(stops) < maxStops; i++ {
		now := stops[i]
		for _, e := range t.edges {
			if e.src != now.at || (i == 0 && e != first) || !e.route.Repositories.matches(now.name) {
				continue
			}
			written := fill(e.pieces, e.src.Name, now.name)
			for _, next := range t.seenAt(e.dst, written) {
				if !repositoryGrammar.MatchString(next.name) || len(next.name) > 255 || seen[next.at.Name+"/"+next.name] {
					continue
				}
				seen[next.at.Name+"/"+next.name] = true
				next.by, next.from = e, i
				stops = append(stops, next)
				if next.at == first.src && first.route.Repositories.matches(next.name) && t.report(first, stops, told) {
					return true
				}
			}
		}
	}
	return false
}

// seenAt lists the registries of the config that show a repository written at
// one of them: those on the same host with a shorter or longer prefix too.
func (t *topology) seenAt(dst *Registry, name string) []stop {
	out := []stop{{at: dst, name: name}}
	full := joinPath(dst.Prefix, name)
	for i := range t.c.Registries {
		r := &t.c.Registries[i]
		if r == dst || canonicalHost(r.Host, r.PlainHTTP) != canonicalHost(dst.Host, dst.PlainHTTP) {
			continue
		}
		if r.Prefix == "" {
			out = append(out, stop{at: r, name: full})
		} else if rest, ok := strings.CutPrefix(full, r.Prefix+"/"); ok {
			out = append(out, stop{at: r, name: rest})
		}
	}
	return out
}

// report tells of a cycle, once for its routes; false when no tag can go round.
func (t *topology) report(first *edge, stops []stop, told map[string]bool) bool {
	last := stops[len(stops)-1]
	var routes []string
	tags := language{}
	at := ""
	for i := len(stops) - 1; stops[i].by != nil; i = stops[i].from {
		e := stops[i].by
		tags = tags.and(e.tags())
		routes = append(routes, e.route.Name)
		if path := fmt.Sprintf("routes[%d].rename", e.index); t.w.given(path) {
			at = path
		}
	}
	if _, found, sure := t.find(tags); sure && !found {
		return false
	}
	slices.Reverse(routes)
	who := "route " + routes[0] + " feeds itself under other names"
	if len(routes) > 1 {
		who = "routes " + strings.Join(routes, ", ") + " are a cycle whose renames do not come back to the original name"
	}
	slices.Sort(routes)
	if id := strings.Join(routes, "\x00"); told[id] {
		return true
	} else {
		told[id] = true
	}
	if at == "" {
		at = first.path()
	}
	t.w.fault(t.w.at(at), "exclude at its source what has been renamed, or remove the rename",
		"%s: %s: %s becomes %s at %s", at, who, quote(stops[0].name), quote(last.name), first.src.Name)
	return true
}
