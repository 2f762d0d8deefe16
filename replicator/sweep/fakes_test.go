package sweep

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rules select by prefix and rename by prefix, as simply as can be.
type rules struct {
	literals       []string
	exclude        string // repositories that begin so are excluded
	excludeTag     string
	noReferrers    bool
	prefix         string
	maxAge         time.Duration
	newest         int
	noDestinations bool
}

func (r rules) Selects(_, repository string) (bool, string) {
	if r.exclude != "" && strings.HasPrefix(repository, r.exclude) {
		return false, repository + " is excluded"
	}
	return true, ""
}

func (r rules) SelectsTag(_, tag string) (bool, string) {
	if _, _, companion := oci.CompanionSubject(tag); companion {
		return !r.noReferrers, "no referrers"
	}
	if r.excludeTag != "" && strings.HasPrefix(tag, r.excludeTag) {
		return false, tag + " is excluded"
	}
	return true, ""
}

func (r rules) Destination(_, repository string) (string, error) {
	if r.noDestinations {
		return "", fmt.Errorf("rename %s: %w", repository, oci.ErrInvalid)
	}
	return r.prefix + repository, nil
}

func (r rules) LiteralRepositories(string) ([]string, bool) { return r.literals, r.literals != nil }

func (r rules) Ages(string) (bool, int) { return r.maxAge > 0 || r.newest > 0, r.newest }

func (r rules) SelectTags(_ string, tags []replicator.DatedTag, now time.Time) []replicator.TagChoice {
	choices := make([]replicator.TagChoice, len(tags))
	age := func(tag replicator.DatedTag) time.Time {
		for _, at := range []time.Time{tag.ListedAt, tag.SeenAt, tag.Created} {
			if at.Year() > 1990 {
				return at
			}
		}
		return time.Time{}
	}
	var order []int
	for i, tag := range tags {
		choices[i].Kept = true
		switch at := age(tag); {
		case at.IsZero():
			choices[i].NoAge, choices[i].WantsCreated = true, tag.Created.IsZero()
		case r.maxAge > 0 && now.Sub(at) > r.maxAge:
			choices[i] = replicator.TagChoice{Reason: "too old"}
		default:
			order = append(order, i)
		}
	}
	if r.newest > 0 && len(order) > r.newest {
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Or(age(tags[b]).Compare(age(tags[a])), strings.Compare(tags[b].Name, tags[a].Name))
		})
		for _, i := range order[r.newest:] {
			choices[i] = replicator.TagChoice{Reason: "not among the newest"}
		}
	}
	return choices
}

// records are a journal's, by identity and repository.
type records struct {
	mu    sync.Mutex
	all   map[string][]replicator.Record
	pages int
	err   error
}

func (r *records) add(identity, repository, tag string, d digest.Digest, proven time.Time) {
	if r.all == nil {
		r.all = make(map[string][]replicator.Record)
	}
	key := identity + " " + repository
	list := r.all[key]
	at, _ := slices.BinarySearchFunc(list, tag, func(rec replicator.Record, tag string) int { return strings.Compare(rec.Tag, tag) })
	r.all[key] = slices.Insert(list, at, replicator.Record{Tag: tag, Digest: d, ProvenAt: proven, ReferrersAt: proven})
}

func (r *records) Records(_ context.Context, identity, repository, after string, limit int) ([]replicator.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pages++
	if r.err != nil {
		return nil, r.err
	}
	list := r.all[identity+" "+repository]
	at, found := slices.BinarySearchFunc(list, after, func(rec replicator.Record, tag string) int { return strings.Compare(rec.Tag, tag) })
	if found {
		at++
	}
	list = list[at:]
	return slices.Clone(list[:min(limit, len(list))]), nil
}

// altered changes what a registry lists.
type altered struct {
	oci.Registry
	names func(iter.Seq2[string, error]) iter.Seq2[string, error]
	tags  func(repository string, tags iter.Seq2[oci.Tag, error]) iter.Seq2[oci.Tag, error]
}

func (a altered) Repositories(ctx context.Context) iter.Seq2[string, error] {
	if a.names == nil {
		return a.Registry.Repositories(ctx)
	}
	return a.names(a.Registry.Repositories(ctx))
}

func (a altered) Repository(name string) oci.Repository {
	return alteredRepository{a.Registry.Repository(name), a}
}

type alteredRepository struct {
	oci.Repository
	a altered
}

func (r alteredRepository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	if r.a.tags == nil {
		return r.Repository.Tags(ctx)
	}
	return r.a.tags(r.Name(), r.Repository.Tags(ctx))
}

// shuffled gives a listing in an order of its own, some lines twice.
func shuffled[T any](seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var all []T
		for v, err := range seq {
			if err != nil {
				yield(v, err)
				return
			}
			all = append(all, v)
		}
		for i := range all {
			at := (i*7919 + 3) % len(all) // a prime steps through all of fewer
			if !yield(all[at], nil) || i%10 == 0 && !yield(all[at], nil) {
				return
			}
		}
	}
}

// cutAfter fails a listing after n lines.
func cutAfter[T any](n int, err error, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		i := 0
		for v, fault := range seq {
			if i++; i > n {
				yield(*new(T), err)
				return
			}
			if !yield(v, fault) {
				return
			}
		}
	}
}

// A world is a source, two destinations and a journal.
type world struct {
	t          testing.TB
	eu, us, ap *ocitest.Registry
	records    *records
	request    Request

	emitted     []Difference
	skipped     []Skipped
	voided      []replicator.Place
	checkpoints []string
}

func newWorld(t testing.TB, source ocitest.Options) *world {
	w := &world{
		t:  t,
		eu: ocitest.New("oci://eu", source), us: ocitest.New("oci://us", ocitest.Options{}), ap: ocitest.New("oci://ap", ocitest.Options{}),
		records: &records{},
	}
	w.request = Request{
		Route: "prod", SourceName: "eu", Source: w.eu,
		Destinations: []Destination{{"us", w.us}, {"ap", w.ap}},
		Rules:        rules{}, Records: w.records,
		Proof: 24 * time.Hour, ReferrersEvery: 24 * time.Hour,
		Emit: func(_ context.Context, ds []Difference) error {
			w.emitted = append(w.emitted, ds...)
			return nil
		},
		Skip: func(s Skipped) { w.skipped = append(w.skipped, s) },
		Void: func(_ context.Context, place replicator.Place) error {
			w.voided = append(w.voided, place)
			return nil
		},
		Checkpoint: func(_ context.Context, cursor string) error {
			w.checkpoints = append(w.checkpoints, cursor)
			return nil
		},
		TempDir: t.TempDir(),
		Now:     func() time.Time { return now },
	}
	return w
}

// image is a tiny image of a name.
func image(name string) ocitest.Content { return ocitest.Image(name, 1) }

// twins pushes an image everywhere, proven some hours ago.
func (w *world) twins(repository, tag string, hours int) digest.Digest {
	c := image(repository + ":" + tag)
	w.eu.Push(repository, tag, c)
	for _, r := range []*ocitest.Registry{w.us, w.ap} {
		r.Push(repository, tag, c)
		w.records.add(r.Identity(), repository, tag, c.Digest(), now.Add(-time.Duration(hours)*time.Hour))
	}
	return c.Digest()
}

// only limits a request to one destination.
func (w *world) only(name string) {
	w.request.Destinations = slices.DeleteFunc(w.request.Destinations, func(d Destination) bool { return d.Name != name })
}

func (w *world) sweep() Result {
	w.t.Helper()
	result, err := Sweep(context.Background(), w.request)
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// lines shows the differences, sorted: `us team/app:v1 missing`.
func (w *world) lines() []string {
	lines := []string{}
	for _, d := range w.emitted {
		lines = append(lines, fmt.Sprintf("%s %s:%s %s", d.Destination, d.DestinationRepository, short(d.Tag), d.Reason))
	}
	slices.Sort(lines)
	return lines
}

func short(tag string) string {
	if _, _, companion := oci.CompanionSubject(tag); companion {
		return "companion" + tag[7+64:]
	}
	return tag
}
