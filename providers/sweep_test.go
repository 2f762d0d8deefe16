package providers_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/sweep"
)

// everything is a route that wants all of one repository, by its own name.
type everything struct{}

func (everything) Selects(string, string) (bool, string)            { return true, "" }
func (everything) SelectsTag(string, string) (bool, string)         { return true, "" }
func (everything) Destination(_, repository string) (string, error) { return repository, nil }
func (everything) LiteralRepositories(string) ([]string, bool)      { return []string{"app"}, true }
func (everything) Ages(string) (bool, int)                          { return false, 0 }
func (everything) SelectTags(string, []replicator.DatedTag, time.Time) []replicator.TagChoice {
	return nil
}

// allProven are records of every tag of one repository.
type allProven []replicator.Record

func (r allProven) Records(_ context.Context, identity, repository, after string, limit int) ([]replicator.Record, error) {
	from, found := slices.BinarySearchFunc(r, after, func(r replicator.Record, tag string) int { return cmp.Compare(r.Tag, tag) })
	if found {
		from++
	}
	list := slices.Clone(r[from:min(from+limit, len(r))])
	for i := range list {
		list[i].Destination = replicator.Place{Identity: identity, Repository: repository}
	}
	return list, nil
}

// A site is one registry of the sweep, and its requests so far.
type site struct {
	registry oci.Registry
	requests func() int
}

// TestSweepOf10000Tags sweeps 10,000 unchanged tags, whose proofs are recorded,
// around the kinds that list with digests, each once as source and once as
// destination: what it is asked is its listing alone, in proportion to its pages.
func TestSweepOf10000Tags(t *testing.T) {
	const n = 10_000
	fill := func(f *providertest.Fake, repo string) []replicator.Record {
		records := make([]replicator.Record, n)
		for i := range n {
			tag := fmt.Sprintf("v%05d", i)
			d := f.SetManifest(repo, tag, "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, `{"n":%d}`, i))
			records[i] = replicator.Record{Tag: tag, Digest: d, ProvenAt: time.Now(), ReferrersAt: time.Now()}
		}
		return records
	}
	open := func(kind, address string, handler http.Handler, username, password string) oci.Registry {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		host, prefix := strings.TrimPrefix(server.URL, "http://"), address
		spec := generic.Spec{Name: kind, Kind: kind, Host: host, Prefix: prefix, PlainHTTP: true, Region: "eu-west-1"}
		if username != "" {
			spec.Auth = generic.Auth{Username: username, Password: func() (string, error) { return password, nil }}
		}
		return opened(t, spec)
	}
	e := &providertest.ECR{}
	host, _ := e.Start(t)
	e.Make("app", providertest.ECRRepository{})
	records := allProven(fill(&e.Registry, "app"))
	a := &providertest.ACR{Upstream: &providertest.Fake{}, May: []string{"pull", "metadata_read"}}
	fill(a.Upstream, "app")
	a.GiveRefresh("refresh")
	g := &providertest.Google{Upstream: &providertest.Fake{}, May: []string{"download", "list"}, Project: "acme", Repositories: []string{"team"}}
	fill(g.Upstream, "acme/team/app")
	h := &providertest.Harbor{Fake: account(&providertest.Fake{}, "robot"), Projects: []string{"team"}}
	fill(h.Fake, "team/app")

	sites := map[string]site{
		"ecr": {
			opened(t, generic.Spec{Name: "ecr", Kind: "ecr", Host: host, PlainHTTP: true, Region: "eu-west-1"}),
			func() int {
				return e.Calls("DescribeImages") + e.Calls("DescribeRepositories") + len(e.Registry.Requests())
			},
		},
		"gcr":    {open("gcr", "acme/team", g, "oauth2accesstoken", accessToken(t, g)), func() int { return len(g.Requests()) }},
		"harbor": {open("harbor", "team", h, "robot", password), func() int { return len(h.Requests()) }},
	}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.Service = strings.TrimPrefix(server.URL, "http://")
	sites["acr"] = site{
		opened(t, generic.Spec{
			Name: "acr", Kind: "acr", Host: a.Service, PlainHTTP: true,
			Auth: generic.Auth{Username: "00000000-0000-0000-0000-000000000000", Password: func() (string, error) { return "refresh", nil }},
		}),
		func() int { return len(a.Requests()) },
	}
	most := map[string]int{"ecr": 30, "acr": 14, "gcr": 5, "harbor": 120}
	ring := []string{"ecr", "acr", "gcr", "harbor"}
	for i, from := range ring {
		to := ring[(i+1)%len(ring)]
		source, destination := sites[from], sites[to]
		t.Run(from+" to "+to, func(t *testing.T) {
			before := map[string]int{from: source.requests(), to: destination.requests()}
			result, err := sweep.Sweep(t.Context(), sweep.Request{
				Route: "prod", SourceName: from, Source: source.registry, Rules: everything{}, Records: records,
				Destinations: []sweep.Destination{{Name: to, Registry: destination.registry}},
				Proof:        24 * time.Hour, ReferrersEvery: 24 * time.Hour, TempDir: t.TempDir(),
				Emit: func(_ context.Context, d []sweep.Difference) error {
					return fmt.Errorf("%d differences, as %+v", len(d), d[0])
				},
			})
			if err != nil || !result.Complete || result.InSync != n || len(result.Failed) > 0 {
				t.Errorf("%+v, %v", result, err)
			}
			for name, site := range map[string]site{from: source, to: destination} {
				if asked := site.requests() - before[name]; asked > most[name] {
					t.Errorf("%d requests to %s, want at most %d", asked, name, most[name])
				}
			}
		})
	}
}

// opened opens a client by its spec.
func opened(t *testing.T, spec generic.Spec) oci.Registry {
	t.Helper()
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	registry, err := providers.Open(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

// accessToken is one of the metadata server's.
func accessToken(t *testing.T, g *providertest.Google) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/computeMetadata/v1/instance/service-accounts/default/token", nil)
	r.Header.Set("Metadata-Flavor", "Google")
	g.Metadata().ServeHTTP(w, r)
	var token struct {
		Value string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &token); err != nil || token.Value == "" {
		t.Fatal(err)
	}
	return token.Value
}
