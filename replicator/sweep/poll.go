package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// TagStates are what is known of a source's tags.
type TagStates interface {
	// TagStates gives what the tags of one repository name as far as is known,
	// by tag in byte order, from a tag on, at most limit of them; fewer than
	// limit are the last.
	TagStates(ctx context.Context, identity, repository, from string, limit int) ([]replicator.TagState, error)
}

// A PolledRoute is a route whose source is polled.
type PolledRoute struct {
	Name string
	// Swept: everything the route wants of its source was known once, so that a
	// tag nobody knows is new. Otherwise what the first look finds is as old as
	// the source, unless the listing tells that it is younger than Since.
	Swept bool
	Since time.Time
}

// A PollRequest says whose tags to look at. Callbacks are called one at a time.
type PollRequest struct {
	SourceName string
	Source     oci.Registry
	Rules      Rules
	Routes     []PolledRoute
	States     TagStates
	// Memory is what earlier polls of this source left.
	Memory *PollMemory
	// Heads is how many tags whose digest no listing tells may be asked for:
	// new ones first, then those known to move, then the others in turn.
	Heads int
	// Pace is asked before each repository and each HEAD: it may wait.
	Pace func(ctx context.Context) error
	// Stop ends the poll early, between two repositories.
	Stop func() bool
	// Emit takes tags that are new or were moved, at most 256 at a time.
	Emit func(ctx context.Context, moved []Moved) error
	// TempDir and Now are as a sweep's.
	TempDir string
	Now     func() time.Time
}

// A Moved is a tag of the source that is new, or names something else than was
// known.
type Moved struct {
	Repository string
	Tag        oci.Tag // with its digest
	Routes     []string
	// Known is what was known of it, nil: it is new.
	Known *replicator.TagState
}

// A PollResult says what a poll has seen.
type PollResult struct {
	// Repositories and Tags that were looked at, Unchanged repositories whose
	// registry said so, Moved tags that were told, Heads that were sent.
	Repositories, Tags, Unchanged, Moved, Heads int64
	// Stopped: it ended early, as Stop wished.
	Stopped bool
	// Left counts new tags whose digest is yet to be asked for.
	Left int64
	// Sources are the first few errors the source gave.
	Sources error
}

// Poll looks at the tags of a source for what is new or was moved, with as few
// requests as its listings allow: a listing per repository, or less of it where
// the registry can tell what changed, and a bounded number of HEADs where
// listings tell names alone. It asks nothing of destinations and reads no
// manifest. What it misses, or cannot know, the sweep finds. Its error is that
// of ctx, of a callback, of States, or a throttling that ends it.
func Poll(ctx context.Context, request PollRequest) (PollResult, error) {
	p := &poll{PollRequest: request, heads: newHeads(request.Memory.cursor, request.Heads)}
	if p.Now == nil {
		p.Now = time.Now
	}
	err := p.run(oci.WithoutPulls(ctx))
	if err == nil {
		err = p.ask(oci.WithoutPulls(ctx))
	}
	if ferr := p.flush(ctx); err == nil {
		err = ferr
	}
	p.result.Sources = errors.Join(p.sources...)
	return p.result, err
}

type poll struct {
	PollRequest
	heads   *headChoice
	found   []Moved
	result  PollResult
	sources []error
	silence silence
	cut     bool // the catalog was not seen whole
}

var errStopped = errors.New("stopped")

// run looks at each repository that a route wants, once however many do.
func (p *poll) run(ctx context.Context) error {
	err := p.repositories(ctx, func(name string) error {
		var routes []PolledRoute
		for _, r := range p.Routes {
			if ok, _ := p.Rules.Selects(r.Name, name); ok {
				routes = append(routes, r)
			}
		}
		switch {
		case len(routes) == 0:
			return nil
		case p.Stop != nil && p.Stop():
			p.result.Stopped = true
			return errStopped
		case p.silence.gaveUp():
			return errGaveUp
		}
		if err := p.pace(ctx); err != nil {
			return err
		}
		return p.repository(ctx, name, routes)
	})
	switch {
	case errors.Is(err, errStopped), errors.Is(err, errGaveUp):
		return nil
	case err == nil && !p.cut:
		p.Memory.ended()
	}
	return err
}

func (p *poll) pace(ctx context.Context) error {
	if p.Pace == nil {
		return context.Cause(ctx)
	}
	return p.Pace(ctx)
}

// repositories are those named literally where all routes do, else the catalog's.
func (p *poll) repositories(ctx context.Context, visit func(string) error) error {
	var literals []string
	for _, r := range p.Routes {
		names, ok := p.Rules.LiteralRepositories(r.Name)
		if !ok {
			literals = nil
			break
		}
		literals = append(literals, names...)
	}
	if literals != nil {
		slices.Sort(literals)
		for _, name := range slices.Compact(literals) {
			if err := visit(name); err != nil {
				return err
			}
		}
		return nil
	}
	for name, err := range checkedNames(p.Source.Repositories(ctx)) {
		if err != nil {
			p.cut = true
			return p.fault(ctx, fmt.Errorf("list repositories of %s: %w", p.SourceName, err))
		}
		if err := visit(name); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// fault notes what the source did wrong; a source that throttles, or does not
// let us in, is not asked on.
func (p *poll) fault(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	p.silence.heard(err)
	if len(p.sources) < maxSources {
		p.sources = append(p.sources, err)
	}
	var throttled *oci.ThrottledError
	if errors.As(err, &throttled) {
		return err
	}
	return nil
}

// repository merges a listing with what is known of the repository's tags.
func (p *poll) repository(ctx context.Context, name string, routes []PolledRoute) error {
	seen := p.Memory.repository(name)
	mark := &oci.Mark{Since: seen.mark}
	l := &listing{dir: p.TempDir}
	defer l.close()
	for tag, err := range p.Source.Repository(name).Tags(oci.WithMark(ctx, mark)) {
		switch {
		case errors.Is(err, oci.ErrRepositoryUnknown):
			p.silence.heard(nil)
			return nil
		case err != nil:
			p.Memory.failed(name)
			return p.fault(ctx, fmt.Errorf("list tags of %s/%s: %w", p.SourceName, name, err))
		case oci.CheckTag(tag.Name) != nil:
		default:
			if err := l.add(usable(tag)); err != nil {
				return err
			}
		}
	}
	p.silence.heard(nil)
	p.result.Repositories++
	tags, err := l.read()
	if err != nil {
		return err
	}
	if mark.Partial && l.n == 0 {
		p.result.Unchanged++
	}
	known := &stateReader{states: p.States, identity: p.Source.Identity(), repository: name, all: !mark.Partial || l.n == 0}
	look := repositoryLook{poll: p, name: name, routes: routes, first: !seen.looked}
	for {
		tag, ok, err := tags.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		state, err := known.find(ctx, tag.Name)
		if err != nil {
			return err
		}
		p.result.Tags++
		if err := look.at(ctx, tag, state); err != nil {
			return err
		}
	}
	if mark.Partial && l.n == 0 {
		// Their names are as they were; what they name need not be.
		err = known.each(ctx, func(s replicator.TagState) { look.known(s) })
	}
	if err == nil {
		p.Memory.looked(name, mark.Next)
	}
	return err
}

// A repositoryLook judges the tags of one repository.
type repositoryLook struct {
	*poll
	name   string
	routes []PolledRoute
	first  bool // of this process
}

// wanted are the routes that want a tag by its name.
func (l *repositoryLook) wanted(tag string) (routes []PolledRoute) {
	for _, r := range l.routes {
		if ok, _ := l.Rules.SelectsTag(r.Name, tag); ok {
			routes = append(routes, r)
		}
	}
	return routes
}

// at judges a listed tag; state is nil where nothing is known of it.
func (l *repositoryLook) at(ctx context.Context, tag oci.Tag, state *replicator.TagState) error {
	routes := l.wanted(tag.Name)
	if len(routes) == 0 {
		return nil
	}
	if state == nil {
		if routes = l.fresh(routes, tag); len(routes) == 0 {
			return nil
		}
	}
	moved := Moved{Repository: l.name, Tag: tag, Routes: names(routes), Known: state}
	switch {
	case tag.Digest != "" && state != nil && state.Digest == tag.Digest:
		return nil
	case tag.Digest != "":
		return l.tell(ctx, moved)
	case state == nil:
		if !l.heads.anew(moved) {
			l.result.Left++
		}
	default:
		l.heads.offer(moved)
	}
	return nil
}

// known offers a tag whose name no listing has told this time.
func (l *repositoryLook) known(s replicator.TagState) {
	if routes := l.wanted(s.Tag); len(routes) > 0 && s.Digest != "" {
		l.heads.offer(Moved{Repository: l.name, Tag: oci.Tag{Name: s.Tag}, Routes: names(routes), Known: &s})
	}
}

// fresh are the routes to which a tag that nobody knows is new. What was there
// at the first look, and what a route's ages leave out, is not.
func (l *repositoryLook) fresh(routes []PolledRoute, tag oci.Tag) (fresh []PolledRoute) {
	passed := l.Memory.hasPassed(l.name, tag.Name)
	for _, r := range routes {
		aged, _ := l.Rules.Ages(r.Name)
		switch {
		case r.Swept && !aged, !passed && !l.first:
			fresh = append(fresh, r)
		case !passed && !tag.PushedAt.IsZero() && !r.Since.IsZero() && tag.PushedAt.After(r.Since):
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 && !passed {
		l.Memory.pass(l.name, tag.Name)
	}
	return fresh
}

func names(routes []PolledRoute) []string {
	list := make([]string, len(routes))
	for i, r := range routes {
		list[i] = r.Name
	}
	return list
}

func (p *poll) tell(ctx context.Context, m Moved) error {
	p.found = append(p.found, m)
	if len(p.found) < batch {
		return nil
	}
	return p.flush(ctx)
}

func (p *poll) flush(ctx context.Context) error {
	if len(p.found) == 0 {
		return nil
	}
	found := p.found
	p.found = nil
	if err := p.Emit(ctx, found); err != nil {
		return fmt.Errorf("tell of %d tags: %w", len(found), err)
	}
	p.result.Moved += int64(len(found))
	return nil
}

// ask sends the HEADs that were chosen.
func (p *poll) ask(ctx context.Context) error {
	chosen, cursor := p.heads.chosen()
	for _, m := range chosen {
		if p.Stop != nil && p.Stop() {
			p.result.Stopped = true
			return nil
		}
		if p.silence.gaveUp() {
			return nil
		}
		if err := p.pace(ctx); err != nil {
			return err
		}
		p.result.Heads++
		var d digest.Digest
		d, err := resolve(ctx, p.Source.Repository(m.Repository), m.Tag.Name)
		switch {
		case errors.Is(err, oci.ErrNotFound): // deleted, or not there yet
			p.silence.heard(nil)
			continue
		case err != nil:
			if err := p.fault(ctx, fmt.Errorf("ask %s/%s:%s: %w", p.SourceName, m.Repository, m.Tag.Name, err)); err != nil {
				return err
			}
			continue
		}
		p.silence.heard(nil)
		if m.Known != nil && m.Known.Digest == d {
			continue
		}
		m.Tag.Digest = d
		if err := p.tell(ctx, m); err != nil {
			return err
		}
	}
	p.Memory.cursor = cursor
	return nil
}
