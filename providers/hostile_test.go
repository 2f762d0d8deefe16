package providers_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// listing are the kinds with lists of their own, or of the specification, by
// their hosts. (Amazon's are read by its SDK.)
var listing = map[string]string{
	"oci": "registry.example", "zot": "registry.example", "harbor": "harbor.example", "quay": "quay.example", "ghcr": "ghcr.io",
	"dockerhub": "docker.io", "gitea": "gitea.example", "gitlab": "registry.gitlab.example", "nexus": "nexus.example",
	"artifactory": "acme.jfrog.example", "acr": "contoso.azurecr.io", "gcr": "europe-docker.pkg.dev",
}

type answerer func(*http.Request) (http.Header, io.Reader)

func (f answerer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	header, body := f(req)
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(body), ContentLength: -1, Request: req}, nil
}

func openHostile(t testing.TB, kind string, rt http.RoundTripper) oci.Registry {
	t.Helper()
	spec := generic.Spec{
		Name: "eu", Kind: kind, Host: listing[kind], Auth: generic.Auth{Username: "robot", Password: func() (string, error) { return password, nil }},
		Redirects: []string{"hub.docker.com", ".docker.io", ".docker.com", ".example", ".azurecr.io", ".pkg.dev", "api.github.com", "ghcr.io", ".googleapis.com"},
	}
	if kind == "gcr" {
		spec.Prefix = "project"
	}
	reg, err := providers.Open(spec, rt)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// lists walks both lists of a registry, and tells what was wrong with them.
func lists(ctx context.Context, reg oci.Registry, most int) (n int, problems []string) {
	fit := func(err error) {
		// Two of our own errors are joined by a line end.
		if text := strings.ReplaceAll(err.Error(), "\neu: ", "; "); len(text) > 2000 || strings.ContainsAny(text, "\n\r\x00\x1b\u202e") || strings.Contains(text, password) {
			problems = append(problems, "unfit to be shown: "+text[:min(len(text), 300)])
		}
	}
	for name, err := range reg.Repositories(ctx) {
		if err != nil {
			fit(err)
			break
		}
		if n++; oci.CheckRepository(name) != nil {
			problems = append(problems, "repository "+name)
		}
		if n > most {
			return n, problems
		}
	}
	for tag, err := range reg.Repository("team/app").Tags(ctx) {
		if err != nil {
			fit(err)
			break
		}
		if n++; oci.CheckTag(tag.Name) != nil || tag.Digest != "" && oci.CheckDigest(tag.Digest) != nil {
			problems = append(problems, "tag "+tag.Name)
		}
		if n > 2*most {
			return n, problems
		}
	}
	return n, problems
}

// TestHostileInventories: whatever a registry of any kind gives as its lists,
// names are names, errors are fit to be shown, and little memory is taken.
func TestHostileInventories(t *testing.T) {
	const mib = 1 << 20
	for name, body := range map[string]func() io.Reader{
		"without end":      func() io.Reader { return forever{} },
		"a million lists":  func() io.Reader { return strings.NewReader(strings.Repeat("[{},", mib/4)) },
		"a million things": func() io.Reader { return strings.NewReader(`[` + strings.Repeat(`{},`, mib/2) + `{}]`) },
		"depth":            func() io.Reader { return strings.NewReader(strings.Repeat(`{"results":[`, 20_000)) },
		"tricks": func() io.Reader {
			return strings.NewReader(`{"name":"../..","tags":["../..","a/b","v1\n","\u001b[31m","v1",null,5,{"name":"..","manifest_digest":"md5:x"}],` +
				`"repositories":["../../etc","team/app","UPPER","a\u0000b"],"results":[{"name":"/abs","tag_last_pushed":5,"images":[{"digest":"sha256:../x"}]}],` +
				`"manifest":{"sha256:../../x":{"tag":["..","v2"],"timeUploadedMs":"1e99"}},"token":"t","page":-1,"has_additional":true,"next":"http://169.254.169.254/"}`)
		},
		"no JSON": func() io.Reader { return strings.NewReader("<html>\x1b[31m") },
		"nothing": func() io.Reader { return strings.NewReader("") },
		"null":    func() io.Reader { return strings.NewReader("null") },
	} {
		for kind := range listing {
			t.Run(name+"/"+kind, func(t *testing.T) {
				asked := 0
				ctx, end := context.WithCancel(t.Context())
				defer end()
				reg := openHostile(t, kind, answerer(func(*http.Request) (http.Header, io.Reader) {
					if asked++; asked > 25 { // where each page names a next one, whoever reads has had enough
						end()
					}
					return http.Header{"Content-Type": {"application/json"}}, body()
				}))
				var from, to runtime.MemStats
				runtime.ReadMemStats(&from)
				_, problems := lists(ctx, reg, 10_000)
				runtime.ReadMemStats(&to)
				for _, problem := range problems {
					t.Error(problem)
				}
				if took := (to.TotalAlloc - from.TotalAlloc) / uint64(max(asked, 1)); took > 100*mib {
					t.Errorf("an answer took %d MiB", took/mib)
				}
			})
		}
	}
}

type forever struct{}

func (forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// FuzzInventory gives each kind one answer to everything.
func FuzzInventory(f *testing.F) {
	for _, text := range []string{
		`{"name":"team/app","tags":["v1"],"repositories":["team/app"]}`,
		`[{"name":"v1","digest":"sha256:a","push_time":"2026-01-01T00:00:00Z","tags":[{"name":"v1"}]}]`,
		`{"tags":[{"name":"v1","manifest_digest":"sha256:a","last_modified":"x"}],"has_additional":true}`,
		`{"manifest":{"sha256:a":{"tag":["v1"],"timeUploadedMs":"5"}},"child":["x"]}`,
		`{"count":1,"next":null,"results":[{"name":"v1","digest":"sha256:a"}],"token":"t"}`,
	} {
		f.Add([]byte(text), "")
	}
	kinds := []string{"oci", "zot", "harbor", "quay", "ghcr", "dockerhub", "gitea", "gitlab", "nexus", "artifactory", "acr", "gcr"}
	f.Fuzz(func(t *testing.T, body []byte, link string) {
		for _, kind := range kinds { // in one order
			asked := 0
			ctx, end := context.WithCancel(t.Context())
			reg := openHostile(t, kind, answerer(func(*http.Request) (http.Header, io.Reader) {
				if asked++; asked > 20 {
					end()
				}
				return http.Header{"Content-Type": {"application/json"}, "Link": {link}}, strings.NewReader(string(body))
			}))
			_, problems := lists(ctx, reg, 1000)
			end()
			for _, problem := range problems {
				t.Errorf("%s: %s", kind, problem)
			}
		}
	})
}
