package ecr

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// makingTime bounds the making of one repository.
const makingTime = time.Minute

// namePattern is ECR's own (API reference, CreateRepository): a part takes one
// separator at a time, where distribution-spec also takes `__` and dashes in a row.
var namePattern = regexp.MustCompile(`^(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

const minName, maxName = 2, 256

// checkName holds a name that is to be written against ECR's rules, before the
// first byte is sent.
func (p *Repository) checkName() error {
	name := p.FullName()
	if err := oci.CheckRepository(name); err != nil {
		return err
	}
	e := &oci.RegistryError{Registry: p.reg.name, Operation: "push to " + name, Kind: oci.ErrRefused}
	switch {
	case len(name) < minName || len(name) > maxName:
		e.Message, e.Hint = "ECR takes names of 2 to 256 characters", "give the route a rename that makes another name"
	case !namePattern.MatchString(name):
		e.Message = "ECR takes no two separators (. _ -) in a row in a name"
		e.Hint = "give the route a rename, as to " + mended(name)
	default:
		return nil
	}
	return e
}

var separators = regexp.MustCompile(`[._-]{2,}`)

// mended is a name that ECR takes, near one that it does not.
func mended(name string) string { return separators.ReplaceAllString(name, "-") }

// Start opens an upload session, in a repository that is made if it is missing
// and may be made.
func (p *Repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	if err := p.checkName(); err != nil {
		return nil, false, err
	}
	if err := p.finish(ctx); err != nil {
		return nil, false, err
	}
	u, mounted, err := p.Repository.Start(ctx, desc, from)
	if again, err := p.made(ctx, err); !again {
		return u, mounted, err
	}
	return p.Repository.Start(ctx, desc, from)
}

// PushManifest stores a manifest, in a repository that is made if it is missing
// and may be made.
func (p *Repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	if err := p.checkName(); err != nil {
		return oci.Pushed{}, err
	}
	pushed, err := p.Repository.PushManifest(ctx, reference, m)
	if again, err := p.made(ctx, err); !again {
		return pushed, err
	}
	return p.Repository.PushManifest(ctx, reference, m)
}

// WouldCreate tells whether a push would make the repository.
func (p *Repository) WouldCreate(ctx context.Context) (bool, error) {
	if p.reg.api == nil || p.reg.create == nil {
		return false, nil
	}
	if err := p.checkName(); err != nil {
		return false, err
	}
	err := p.reg.api.exists(ctx, p.FullName())
	if errors.Is(err, oci.ErrRepositoryUnknown) {
		return true, nil
	}
	return false, err
}

// made makes the repository if that is what err asks for, and tells whether
// asking again can help.
func (p *Repository) made(ctx context.Context, err error) (again bool, _ error) {
	r := p.reg
	if !errors.Is(err, oci.ErrRepositoryUnknown) || r.create == nil || r.api == nil {
		return false, err
	}
	return p.once(ctx, func(ctx context.Context) error {
		if err := r.api.make(ctx, p.FullName(), r.create); err != nil {
			return err
		}
		if strings.TrimSpace(r.create.Lifecycle+r.create.Policy) == "" {
			return nil
		}
		r.unfinished.Store(p.FullName(), true)
		return p.setPolicies(ctx)
	})
}

// finish sets the policies of a repository that we made, where that failed
// before: nobody else would.
func (p *Repository) finish(ctx context.Context) error {
	if _, open := p.reg.unfinished.Load(p.FullName()); !open {
		return nil
	}
	_, err := p.once(ctx, p.setPolicies)
	return err
}

// setPolicies sets what CreateRepository takes no word of: who else may use the
// repository first, then what is cleaned up in it.
func (p *Repository) setPolicies(ctx context.Context) error {
	how := p.reg.create
	for _, one := range []struct {
		key, text string
		set       func(ctx context.Context, repository, policy string) error
	}{{"create.policy.file", how.Policy, p.reg.api.setPolicy}, {"create.lifecycle.file", how.Lifecycle, p.reg.api.setLifecycle}} {
		if strings.TrimSpace(one.text) == "" {
			continue
		}
		err := one.set(ctx, p.FullName(), one.text)
		var refused *oci.RegistryError
		if errors.Is(err, oci.ErrRefused) && errors.As(err, &refused) {
			refused.Hint = "the repository was made; mend the policy in " + one.key
		}
		if err != nil {
			return err
		}
	}
	p.reg.unfinished.Delete(p.FullName())
	return nil
}

// once runs f for the repository, whoever else wants the same meanwhile.
func (p *Repository) once(ctx context.Context, f func(context.Context) error) (bool, error) {
	flight := p.reg.making.DoChan(p.FullName(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makingTime) // it serves others too
		defer cancel()
		return nil, f(ctx)
	})
	select {
	case <-ctx.Done():
		return false, &oci.RegistryError{Registry: p.reg.name, Operation: "make repository " + p.FullName(), Kind: ctx.Err(), Cause: context.Cause(ctx)}
	case result := <-flight:
		return result.Err == nil, result.Err
	}
}
