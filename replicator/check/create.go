package check

import (
	"context"
	"errors"

	"github.com/twinport/twinport/replicator/oci"
)

// create looks whether missing repositories may be made.
func (r *run) create(ctx context.Context) outcome {
	if !r.s.Makes {
		return skipped("not needed: a push makes what is missing")
	}
	tester, is := r.s.Client.(oci.CreationTester)
	switch {
	case !r.s.To.Create && is:
		return r.unmade(ctx, tester)
	case !r.s.To.Create:
		return skipped("not needed: create.missing is not set")
	case !is:
		return skipped("not tried: it cannot be without making one")
	}
	for _, name := range r.candidates(ctx) {
		err := tester.Ready(ctx, name)
		if errors.Is(err, oci.ErrDenied) {
			detail, hint := told(err)
			o := skipped("not tried: it may not be looked for what is there (%s)", detail)
			o.hint = "for it to be tried: " + hint
			return o
		}
		if err == nil {
			err = tester.MayCreate(ctx, name)
		}
		switch {
		case err == nil:
			return ok("may make repositories (asked for %s, which is there)", name)
		case errors.Is(err, oci.ErrNotFound):
			continue
		case errors.Is(err, oci.ErrUnsupported):
			return skipped("not tried: the login is no identity of the provider's")
		}
		return r.fail(err)
	}
	return skipped("not tried: nothing is there yet to ask for")
}

// unmade looks whether there is what nothing makes.
func (r *run) unmade(ctx context.Context, tester oci.CreationTester) outcome {
	for _, name := range r.missing(ctx) {
		if err := tester.Ready(ctx, name); errors.Is(err, oci.ErrRepositoryUnknown) {
			detail, hint := told(err)
			if hint == "" {
				hint = "make it, or set create: {missing: true} for this registry"
			}
			return warning(hint, "%s cannot be pushed to yet, and nothing makes it: %s", name, detail)
		}
	}
	return skipped("not needed: create.missing is not set")
}
