package integration

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

func shipped(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(harness.Root(), "deploy", "registries", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The notifications that deploy/registries/distribution.yml tells people to
// copy: a real registry takes them, and a push arrives by them.
func TestTheDistributionGuideWorks(t *testing.T) {
	t.Parallel()
	d := harness.NewDaemon(t, harness.Config{})
	more := shipped(t, "distribution.yml")
	for from, to := range map[string]string{"https://twinport.example.com/hooks/eu": d.HookURL("eu"), "CHANGE-ME": harness.Secret("eu")} {
		if !strings.Contains(more, from) {
			t.Fatalf("the guide says nothing of %s", from)
		}
		more = strings.ReplaceAll(more, from, to)
	}
	eu := harness.StartRegistry(t, "eu", harness.RegistryOptions{More: more})
	us := harness.StartRegistry(t, "us", harness.RegistryOptions{})
	d.Config.Registries = []harness.RegistryConfig{{Name: "eu", Addr: eu.Addr}, {Name: "us", Addr: us.Addr}}
	d.Config.Routes = []harness.RouteConfig{{Name: "prod", From: "eu", To: []string{"us"}, Lines: []string{"sweep: never"}}}
	d.WriteConfig()
	d.Start()
	image := harness.NewGenerator(seedOf(t.Name())).Image(harness.ImageSpec{Layers: 1})
	if err := eu.Client().Push(t.Context(), "team/app", image, "v1"); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the push to arrive", time.Minute, func(ctx context.Context) error {
		return us.Client().Has(ctx, "team/app", "v1", image, true)
	})
}

// The scripts that make webhooks ask the registries' APIs for what their guides
// say, with the right login, and fail where the registry does.
func TestWebhookScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not there")
	}
	const hook, secret = "https://twinport.example.com/hooks/x", "the-secret"
	for _, c := range []struct {
		script, base, argument string
		env                    []string
		path, login            string
		url, secret            func(doc map[string]any) any
	}{
		{
			"harbor-webhook.sh", "HARBOR", "team", []string{"HARBOR_USER=admin", "HARBOR_PASSWORD=pass"},
			"/api/v2.0/projects/team/webhook/policies", "Basic YWRtaW46cGFzcw==",
			func(doc map[string]any) any { return at(doc, "targets", 0, "address") },
			func(doc map[string]any) any { return at(doc, "targets", 0, "auth_header") },
		},
		{
			"quay-webhook.sh", "QUAY", "team/app", []string{"QUAY_TOKEN=tok"}, "/api/v1/repository/team/app/notification/", "Bearer tok",
			func(doc map[string]any) any { return at(doc, "config", "url") },
			func(doc map[string]any) any { return at(doc, "config", "url") },
		},
		{
			"ghcr-webhook.sh", "GITHUB", "team", []string{"GITHUB_TOKEN=tok"}, "/orgs/team/hooks", "Bearer tok",
			func(doc map[string]any) any { return at(doc, "config", "url") },
			func(doc map[string]any) any { return at(doc, "config", "secret") },
		},
		{
			"gitea-webhook.sh", "GITEA", "team", []string{"GITEA_TOKEN=tok"}, "/api/v1/orgs/team/hooks", "token tok",
			func(doc map[string]any) any { return at(doc, "config", "url") },
			func(doc map[string]any) any { return at(doc, "config", "secret") },
		},
		{
			"artifactory-webhook.sh", "ARTIFACTORY", "", []string{"ARTIFACTORY_TOKEN=tok", "REPOSITORY=docker-local"},
			"/event/api/v1/subscriptions", "Bearer tok",
			func(doc map[string]any) any { return at(doc, "handlers", 0, "url") },
			func(doc map[string]any) any { return at(doc, "handlers", 0, "secret") },
		},
	} {
		t.Run(c.script, func(t *testing.T) {
			t.Parallel()
			var status, asked atomic.Int64
			status.Store(http.StatusCreated)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				var doc map[string]any
				if err := json.Unmarshal(body, &doc); err != nil {
					t.Errorf("%s: %v", body, err)
				}
				asked.Add(1)
				if r.Method != http.MethodPost || r.URL.Path != c.path || r.Header.Get("Authorization") != c.login {
					t.Errorf("%s %s as %q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
				}
				url, _ := c.url(doc).(string)
				told, _ := c.secret(doc).(string)
				if !strings.HasPrefix(url, hook) || !strings.Contains(told, secret) {
					t.Errorf("url %q, secret %q", url, told)
				}
				w.WriteHeader(int(status.Load()))
			}))
			defer server.Close()
			run := func() ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(harness.Root(), "deploy", "registries", c.script))
				if c.argument != "" {
					cmd.Args = append(cmd.Args, c.argument)
				}
				cmd.Env = append(os.Environ(), append(c.env, c.base+"="+server.URL, "TWINPORT="+hook, "TWINPORT_SECRET="+secret)...)
				return cmd.CombinedOutput()
			}
			if out, err := run(); err != nil || asked.Load() != 1 || !strings.Contains(string(out), "created") {
				t.Errorf("%v, %d requests: %s", err, asked.Load(), out)
			}
			status.Store(http.StatusForbidden)
			if out, err := run(); err == nil || strings.Contains(string(out), secret) {
				t.Errorf("a registry that refuses: %v: %s", err, out)
			}
		})
	}
}

// at walks keys and list indexes down to a value, nil where there is none.
func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			doc, _ := value.(map[string]any)
			value = doc[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}
