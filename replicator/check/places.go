package check

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxNames bounds the repositories of a catalog that are gone through.
	maxNames = 10_000
	// maxLooks bounds the repositories whose tags are asked for.
	maxLooks = 5
)

// look asks for a repository's first tag. A repository that is not there is no
// error: there is then no spot.
func (r *run) look(ctx context.Context, name string) (spot, bool, error) {
	s := spot{repo: r.s.Client.Repository(name)}
	for tag, err := range s.repo.Tags(ctx) {
		if errors.Is(err, oci.ErrNotFound) {
			return s, false, nil
		}
		if err != nil {
			return s, false, err
		}
		if oci.IsProbe(tag.Name) {
			continue // of a look beside this one
		}
		s.tag = tag.Name
		break
	}
	return s, true, nil
}

// among looks at names until one has a tag; those found with a tag come first.
func (r *run) among(ctx context.Context, found *[]spot, names []string, looks *int) error {
	for _, name := range names {
		if *looks >= maxLooks {
			return nil
		}
		*looks++
		s, there, err := r.look(ctx, name)
		switch {
		case err != nil:
			return err
		case there && s.tag != "":
			*found = slices.Insert(*found, 0, s)
		case there:
			*found = append(*found, s)
		}
	}
	return nil
}

// catalog goes through the registry's list for repositories that match, until
// enough with a tag are found, and tells how many names it has seen.
func (r *run) catalog(ctx context.Context, found *[]spot, match func(string) bool, enough int) (seen int, err error) {
	looks := 0
	for name, err := range r.s.Client.Repositories(ctx) {
		if err != nil {
			return seen, err
		}
		seen++
		if match(name) && !slices.ContainsFunc(*found, func(s spot) bool { return s.repo.Name() == name }) {
			if err := r.among(ctx, found, []string{name}, &looks); err != nil {
				return seen, err
			}
		}
		if tagged(*found) >= enough || looks >= maxLooks || seen >= maxNames {
			break
		}
	}
	return seen, nil
}

func tagged(found []spot) (n int) {
	for _, s := range found {
		if s.tag != "" {
			n++
		}
	}
	return n
}

// list looks whether what the routes need to know is told: the repositories
// where they go by patterns, and a repository's tags.
func (r *run) list(ctx context.Context) outcome {
	var outcomes []outcome
	if r.s.From != nil {
		outcomes = append(outcomes, r.listFrom(ctx, r.s.From))
	}
	if r.s.To != nil && r.gone == "" {
		outcomes = append(outcomes, r.listTo(ctx, r.s.To))
	}
	return worst(outcomes)
}

// worst is the first of the gravest outcomes; of good ones all are told.
func worst(outcomes []outcome) outcome {
	for _, state := range []State{Failed, Warning} {
		if i := slices.IndexFunc(outcomes, func(o outcome) bool { return o.state == state }); i >= 0 {
			return outcomes[i]
		}
	}
	all := outcomes[0]
	for _, o := range outcomes[1:] {
		if all.state == Skipped {
			all.state = o.state
		}
		if o.detail != all.detail {
			all.detail += "; " + o.detail
		}
	}
	return all
}

func (r *run) listFrom(ctx context.Context, use *Use) outcome {
	looks := 0
	if err := r.among(ctx, &r.from, use.Names, &looks); err != nil {
		return r.fail(err)
	}
	seen := 0
	if use.Patterns {
		var err error
		seen, err = r.catalog(ctx, &r.from, use.Match, 1)
		switch {
		case err == nil:
		case seen > 0 && errors.Is(err, context.DeadlineExceeded):
			return warning("check repositories.include of the routes; the sweep has more time", "lists its repositories, but in %s only %d, and none that a route reads", listTime, seen)
		default:
			return r.fail(err)
		}
	}
	switch {
	case len(r.from) > 0 && use.Patterns:
		return ok("lists its repositories, and the tags of %s", r.from[0].repo.Name())
	case len(r.from) > 0:
		return ok("lists the tags of %s", r.from[0].repo.Name())
	case use.Patterns:
		return warning("check repositories.include of the routes, where there should be some", "lists its repositories (%d), but none that a route reads", seen)
	}
	return warning("check repositories.include of the routes, where they should be there", "none of the repositories that routes name is there: %s", few(use.Names))
}

// listTo finds repositories of the routes at a destination. Nobody needs its
// catalog: where it is closed, what the sources hold tells the names.
func (r *run) listTo(ctx context.Context, use *Use) outcome {
	looks := 0
	if err := r.among(ctx, &r.to, use.Names, &looks); err != nil {
		return r.fail(err)
	}
	if tagged(r.to) < 2 {
		quiet := oci.WithDetours(ctx, func(error) {})
		seen, err := r.catalog(quiet, &r.to, use.Match, 2)
		if err != nil && (seen == 0 && unanswered(err) || errors.Is(err, oci.ErrDenied) && len(r.to) == 0 && !errors.Is(err, oci.ErrUnlistable)) {
			return r.fail(err)
		}
	}
	if len(r.to) == 0 {
		looks = 0
		if err := r.among(ctx, &r.to, r.plans(ctx), &looks); err != nil {
			return r.fail(err)
		}
	}
	if len(r.to) == 0 {
		return skipped("none of the routes' repositories is there yet")
	}
	return ok("lists the tags of %s", r.to[0].repo.Name())
}

// plans are names that routes will write, asked for once.
func (r *run) plans(ctx context.Context) []string {
	if !r.asked && r.s.To.Planned != nil {
		r.planned = r.s.To.Planned(ctx)
	}
	r.asked = true
	return r.planned
}

// candidates are names at a destination that its routes write, those that are
// there first.
func (r *run) candidates(ctx context.Context) (names []string) {
	for _, s := range r.to {
		names = append(names, s.repo.Name())
	}
	names = append(names, r.s.To.Names...)
	names = append(names, r.plans(ctx)...)
	if r.s.To.Example != "" {
		names = append(names, r.s.To.Example)
	}
	return names
}

// missing are names that routes name or will write and that were not found at
// the destination; not all of them were looked for.
func (r *run) missing(ctx context.Context) (names []string) {
	for _, name := range append(slices.Clone(r.s.To.Names), r.plans(ctx)...) {
		if len(names) < maxLooks && !slices.ContainsFunc(r.to, func(s spot) bool { return s.repo.Name() == name }) {
			names = append(names, name)
		}
	}
	return names
}

func (r *run) identity(ctx context.Context) outcome {
	who, is := r.s.Client.(oci.Introspector)
	if !is {
		return skipped("not tried: its client does not tell")
	}
	name, err := who.Account(ctx)
	if err == nil {
		return ok("%s", name)
	}
	o := r.fail(err)
	if r.gone == "" {
		r.gone = "not tried: the login is refused"
	}
	if name != "" {
		o.detail = fmt.Sprintf("%s: %s", name, o.detail)
	}
	return o
}
