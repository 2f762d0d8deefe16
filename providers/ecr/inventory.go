package ecr

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// Repositories lists those below the prefix by AWS's API: 1,000 a page.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	if r.api == nil {
		return r.Registry.Repositories(ctx)
	}
	return func(yield func(string, error) bool) {
		prefix := ""
		if r.Prefix() != "" {
			prefix = r.Prefix() + "/"
		}
		for name, err := range r.api.repositories(ctx) {
			if err != nil {
				yield("", unlistable(err))
				return
			}
			below, ok := strings.CutPrefix(name, prefix)
			if !ok || oci.CheckRepository(below) != nil {
				continue
			}
			if !yield(below, nil) {
				return
			}
		}
	}
}

// unlistable is a list that this identity may not have.
func unlistable(err error) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || !errors.Is(err, oci.ErrDenied) || refused.Code == "" {
		return err
	}
	e := *refused
	e.Kind, e.Hint = oci.ErrUnlistable, e.Hint+"; or name the repositories literally under repositories.include"
	return &e
}

// Tags lists by DescribeImages, 1,000 images a page with digests and times. An
// identity that may not is given the plain tag list instead, which costs a
// request more for each tag.
func (p *Repository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	if p.reg.api == nil {
		return p.Repository.Tags(ctx)
	}
	return func(yield func(oci.Tag, error) bool) {
		if err := oci.CheckRepository(p.FullName()); err != nil {
			yield(oci.Tag{}, err)
			return
		}
		first := true
		for tag, err := range p.reg.api.tags(ctx, p.FullName()) {
			if first && (errors.Is(err, oci.ErrDenied) || errors.Is(err, oci.ErrUnlistable) || errors.Is(err, oci.ErrRefused)) {
				oci.Detour(ctx, err)
				p.Repository.Tags(ctx)(yield)
				return
			}
			first = false
			if !yield(tag, err) || err != nil {
				return
			}
		}
	}
}
