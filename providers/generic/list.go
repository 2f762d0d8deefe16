package generic

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is what we ask for: some registries refuse more than 1,000, a
	// few even that, and are asked again for smallPage.
	pageSize  = 1000
	smallPage = 100
	// maxPage bounds one page in bytes, maxPages and maxNames a whole list.
	maxPage  = 16 << 20
	maxPages = 100_000
	maxNames = 5_000_000
	// maxStill is how many pages in a row may tell nothing new.
	maxStill = 100
)

// Repositories lists what is below the prefix.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	list := r.catalog(ctx)
	if r.ways.Repositories != nil {
		list = orElse(ctx, r.ways.Repositories(ctx, r), list)
	}
	prefix := ""
	if r.spec.Prefix != "" {
		prefix = r.spec.Prefix + "/"
	}
	return func(yield func(string, error) bool) {
		for name, err := range list {
			if err != nil {
				yield("", unlistable(r.named(err)))
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

func (r *Registry) catalog(ctx context.Context) iter.Seq2[string, error] {
	c := call{
		op: oci.OpList, what: "GET catalog", method: http.MethodGet, url: r.url("/v2/_catalog"),
		scopes: []string{"registry:catalog:*"}, limit: maxPage,
	}
	if r.ways.NoCatalogScope {
		c.scopes = nil
	}
	return r.names(ctx, c, "repositories")
}

func unlistable(err error) error {
	return Unlistable(err, "name the repositories literally under repositories.include, or let the account read the catalog")
}

// Unlistable is a catalog that is refused, or not there, with a hint what to
// do; other errors stay as they are.
func Unlistable(err error, hint string) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Status {
	case 400, 401, 403, 404, 405, 501:
		e := *refused
		e.Kind = oci.ErrUnlistable
		e.Hint = hint
		return &e
	}
	return err
}

// Tags lists the repository's tags.
func (p *Repository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	list := p.tagList(ctx)
	if own := p.reg.ways.Tags; own != nil && oci.CheckRepository(p.full) == nil {
		list = orElse(ctx, own(ctx, p.reg, p.full), list)
	}
	return func(yield func(oci.Tag, error) bool) {
		for tag, err := range list {
			if err == nil && (oci.CheckTag(tag.Name) != nil || p.reg.ways.NoTag != nil && p.reg.ways.NoTag(tag.Name)) {
				continue // some lists hold digests
			}
			if err == nil && tag.Digest != "" && oci.CheckDigest(tag.Digest) != nil {
				tag.Digest = ""
			}
			if !yield(tag, p.reg.named(err)) || err != nil {
				return
			}
		}
	}
}

// named gives an error of a kind's own list the registry's name.
func (r *Registry) named(err error) error {
	var refused *oci.RegistryError
	if errors.As(err, &refused) && refused.Registry == "" {
		e := *refused
		e.Registry = r.spec.Name
		return &e
	}
	return err
}

// tagList is the list of the specification, names alone.
func (p *Repository) tagList(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		u, err := p.path("tags/list")
		if err != nil {
			yield(oci.Tag{}, err)
			return
		}
		c := call{op: oci.OpList, what: "GET tags " + p.full, method: http.MethodGet, url: u, scopes: p.pull(), limit: maxPage}
		for name, err := range p.reg.names(ctx, c, "tags") {
			if !yield(oci.Tag{Name: name}, err) || err != nil {
				return
			}
		}
	}
}

// TagNames is the list of the specification, for kinds that need both.
func (r *Registry) TagNames(ctx context.Context, full string) iter.Seq2[oci.Tag, error] {
	p := &Repository{reg: r, name: full, full: full}
	return p.tagList(oci.WithMark(ctx, nil)) // what both hold is for the kind to say
}

// names walks the pages of a list of names.
func (r *Registry) names(ctx context.Context, first call, field string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var (
			base     = *first.url
			n        = pageSize
			c        = first
			previous []string
			asked    = make(map[string]bool)
			probe    bool // this page was asked for without a Link
			mark     *oci.Mark
			told     int
			still    int // pages without a new name, in a row
		)
		if field == "tags" {
			mark = oci.MarkOf(ctx)
		}
		c.url = withQuery(base, "n="+strconv.Itoa(n))
		for turn := range maxPages {
			since := ""
			if turn == 0 {
				since = unchangedSince(mark, &c)
			}
			a, err := r.do(ctx, c)
			c.header, c.accept = first.header, first.accept
			if err == nil && a.status == http.StatusNotModified && since != "" {
				mark.Next, mark.Partial = since, true
				return
			}
			if err != nil {
				var refused *oci.RegistryError
				if previous == nil && n == pageSize && errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
					n = smallPage
					c.url = withQuery(base, "n="+strconv.Itoa(n))
					continue
				}
				yield("", err)
				return
			}
			page, err := parseNames(a.bytes, field)
			if err != nil {
				yield("", r.senseless(c.what, a.status, err.Error()))
				return
			}
			fresh := newNames(previous, page)
			if probe && len(fresh) == 0 {
				return
			}
			if len(previous) > 0 && len(page) > 0 && slices.Equal(previous, page) {
				yield("", r.senseless(c.what, a.status, "the list repeats a page"))
				return
			}
			for _, name := range fresh {
				if !yield(name, nil) {
					return
				}
			}
			if still++; len(fresh) > 0 {
				still = 0
			}
			if told += len(fresh); told > maxNames || still > maxStill {
				break
			}
			asked[c.url.RawQuery] = true
			next, err := nextPage(a.header.Values("Link"), a.url, &base)
			switch {
			case err != nil:
				yield("", r.senseless(c.what, a.status, err.Error()))
				return
			case next == nil && len(page) == n && slices.IsSorted(page):
				// A page that is exactly full and names no next one may be cut
				// short by a registry that sends no links.
				next = withQuery(base, url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}}.Encode())
				probe = true
			case next == nil && len(asked) == 1 && len(previous) == 0:
				markList(mark, a.header)
				return
			case next == nil:
				return
			default:
				probe = false
			}
			if asked[next.RawQuery] {
				yield("", r.senseless(c.what, a.status, "the list leads back to a page before"))
				return
			}
			if len(asked) > 1000 { // the progress of pages is then enough
				clear(asked)
			}
			previous, c.url = page, next
		}
		yield("", r.senseless(first.what, 0, "the list has no end"))
	}
}

// etagMark begins the marks of lists of one page that have an entity tag.
const (
	etagMark = "etag "
	maxETag  = 512
)

// unchangedSince makes a call conditional where an earlier list left an entity
// tag (RFC 9110, section 13.1.2), and gives its mark.
func unchangedSince(mark *oci.Mark, c *call) string {
	if mark == nil {
		return ""
	}
	etag, ok := strings.CutPrefix(mark.Since, etagMark)
	if !ok {
		return ""
	}
	c.header = c.header.Clone()
	if c.header == nil {
		c.header = make(http.Header)
	}
	c.header.Set("If-None-Match", etag)
	c.accept = []int{http.StatusOK, http.StatusNotModified}
	return mark.Since
}

// markList notes the entity tag of a list that is one page: that of a first
// page says nothing of the others.
func markList(mark *oci.Mark, header http.Header) {
	etag := header.Get("ETag")
	printable := !strings.ContainsFunc(etag, func(c rune) bool { return c < '!' || c > '~' })
	if mark != nil && etag != "" && len(etag) <= maxETag && printable {
		mark.Next = etagMark + etag
	}
}

func withQuery(u url.URL, query string) *url.URL {
	u.RawQuery = query
	return &u
}

// newNames leaves out what the page before or the page itself has told already.
func newNames(previous, page []string) []string {
	seen := make(map[string]bool, len(previous)+len(page))
	for _, name := range previous {
		seen[name] = true
	}
	var fresh []string
	for _, name := range page {
		if !seen[name] {
			seen[name] = true
			fresh = append(fresh, name)
		}
	}
	return fresh
}

var errNoList = errors.New("the answer is no list of names")

// parseNames reads a page of a catalog or tag list. Some hold nulls or other
// things, which are left out; a missing list is an empty one.
func parseNames(body []byte, field string) ([]string, error) {
	var doc map[string]json.RawMessage
	if json.Unmarshal(body, &doc) != nil || doc == nil {
		return nil, errNoList
	}
	raw, ok := doc[field]
	if !ok {
		if _, named := doc["name"]; named {
			return nil, nil
		}
		return nil, errNoList
	}
	var items []any
	if json.Unmarshal(raw, &items) != nil {
		return nil, errNoList
	}
	names := make([]string, 0, len(items))
	for _, item := range items {
		if name, ok := item.(string); ok && name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}
