package providers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
)

func TestOpen(t *testing.T) {
	for kind, want := range map[string]string{
		"oci": "", "zot": "", "harbor": "", "ecr": "does not tell its region", "ecr-public": "", "ghcr": "", "quay": "", "gitea": "", "gitlab": "", "nexus": "", "artifactory": "", "dockerhub": "", "nonsense": "no kind",
	} {
		reg, err := providers.Open(generic.Spec{Name: "eu", Kind: kind, Host: "Registry.Example:443", Prefix: "/team/x/"}, http.DefaultTransport)
		switch {
		case want != "":
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "eu") {
				t.Errorf("%s: got %v, want %q", kind, err, want)
			}
		case err != nil:
			t.Errorf("%s: %v", kind, err)
		case reg.Identity() != kind+"://registry.example/team/x":
			t.Errorf("%s: identity %s", kind, reg.Identity())
		}
	}
	for _, spec := range []generic.Spec{
		{Name: "eu"}, {Name: "eu", Host: "a b"}, {Name: "eu", Host: "registry.example", Prefix: "UP"},
		{Name: "eu", Host: "registry.example", Redirects: []string{"http://x"}},
	} {
		if _, err := providers.Open(spec, http.DefaultTransport); err == nil {
			t.Errorf("%+v passes", spec)
		}
	}
	if _, err := providers.Open(generic.Spec{Name: "eu", Host: "registry.example"}, nil); err == nil {
		t.Error("no transport passes")
	}
}
