package providers_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

const password = "password-of-robot"

// account is a fake that asks for one.
func account(f *providertest.Fake, username string) *providertest.Fake {
	f.Username, f.Password = username, password
	return f
}

// TestContract holds every kind that is no cloud's against the contract, before
// a fake that refuses what the real one refuses.
func TestContract(t *testing.T) { testContract(t, nil) }

// TestContractBeforeDistribution: the same, and the content is in a real registry.
func TestContractBeforeDistribution(t *testing.T) {
	testContract(t, providertest.Proxy(providertest.Distribution(t, "")))
}

// testContract runs the contract before fakes that keep content in an upstream,
// nil: in memory.
func testContract(t *testing.T, upstream http.Handler) {
	account := func(f *providertest.Fake, username string) *providertest.Fake {
		f.Upstream = upstream
		return account(f, username)
	}
	all := providertest.Suite{Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true, Resume: true, SHA512: true}
	without := func(change func(*providertest.Suite)) providertest.Suite {
		s := all
		change(&s)
		return s
	}
	begins := func(s *providertest.Suite) { s.Resume, s.Referrers = false, false }
	for kind, c := range map[string]struct {
		fake  http.Handler
		suite providertest.Suite
	}{
		"quay": {&providertest.Quay{Fake: account(&providertest.Fake{Tokens: true, Page: 100}, "team+robot")}, all},
		"ghcr": {
			&providertest.GHCR{Fake: account(&providertest.Fake{Tokens: true}, "robot"), Referrers: http.StatusSeeOther},
			without(func(s *providertest.Suite) { begins(s); s.Catalog, s.NoDeletes = false, true }),
		},
		"dockerhub": {
			&providertest.DockerHub{Fake: account(&providertest.Fake{Tokens: true, TokenSeconds: 300, Deletes: providertest.DeletesDigests}, "robot"), Private: true},
			without(func(s *providertest.Suite) { s.Resume, s.Catalog = false, false }),
		},
		"gitea": {
			&providertest.Gitea{Fake: account(&providertest.Fake{Tokens: true, Deletes: providertest.DeletesLast}, "robot"), Owners: []string{"contract"}},
			without(begins),
		},
		"gitlab": {
			&providertest.GitLab{Fake: account(&providertest.Fake{Tokens: true, TokenSeconds: 300, NoReferrers: true, Deletes: providertest.DeletesDigests}, "robot"), Projects: []string{"contract"}},
			without(begins),
		},
		"nexus": {
			&providertest.Nexus{Fake: account(&providertest.Fake{Deletes: providertest.DeletesDigests}, "robot"), Old: true},
			without(func(s *providertest.Suite) { begins(s); s.NoDeletes = true }),
		},
		"artifactory": {
			&providertest.Artifactory{Fake: account(&providertest.Fake{Tokens: true, Deletes: providertest.DeletesDigests}, "robot"), Keys: []string{"contract"}}, all,
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c.suite.Referrers = c.suite.Referrers && upstream == nil // distribution has none
			server := httptest.NewServer(c.fake)
			t.Cleanup(server.Close)
			c.suite.Open = func(t *testing.T) oci.Registry {
				return dial(t, kind, server, func(spec *generic.Spec) {
					if kind == "quay" {
						spec.Auth.Username = "team+robot"
					}
					if kind == "artifactory" {
						spec.Prefix = "contract" // the key of a repository
					}
				})
			}
			providertest.Run(t, c.suite)
		})
	}
}

// dial opens a client to a fake.
func dial(t *testing.T, kind string, server *httptest.Server, change func(*generic.Spec)) oci.Registry {
	t.Helper()
	spec := generic.Spec{
		Name: kind, Kind: kind, Host: strings.TrimPrefix(server.URL, "http://"), PlainHTTP: true,
		Auth: generic.Auth{Username: "robot", Password: func() (string, error) { return password, nil }},
	}
	if change != nil {
		change(&spec)
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	reg, err := providers.Open(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// serve opens a client to a fake of its own.
func serve(t *testing.T, kind string, fake http.Handler, change func(*generic.Spec)) oci.Registry {
	t.Helper()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return dial(t, kind, server, change)
}
