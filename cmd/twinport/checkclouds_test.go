package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/check"
)

// cloud begins a bench whose registry x is a cloud's with these repositories;
// the Fake behind it holds an image in each.
func cloud(t *testing.T, f *providertest.Fake, prefix string, repositories ...string) *bench {
	t.Helper()
	b := newBench(t, starRoute, "eu", "us")
	b.registries["x"] = f
	for _, name := range repositories {
		b.image("eu", name, "v1", "image of "+name)
		b.image("x", prefix+name, "v1", "image of "+name)
	}
	return b
}

func (b *bench) startECR(e *providertest.ECR, repositories ...string) (lines, host string) {
	b.Helper()
	host, storage := e.Start(b.T)
	for _, name := range repositories {
		e.Make(name, providertest.ECRRepository{Mutability: "MUTABLE"})
	}
	return fmt.Sprintf("kind: ecr, region: eu-west-1, redirects: {allow: [%q]}, create: {missing: true}", storage), host
}

// TestCheckECR takes IAM actions away, one by one.
func TestCheckECR(t *testing.T) {
	for _, c := range []struct {
		deny  []string
		check string
		state check.State
		words []string
	}{
		{nil, "push", check.OK, nil},
		{[]string{"ecr:GetAuthorizationToken"}, "identity", check.Failed, []string{"ecr:GetAuthorizationToken"}},
		{[]string{"ecr:DescribeRepositories"}, "list", check.Failed, []string{"ecr:DescribeRepositories"}},
		{[]string{"ecr:DescribeImages"}, "list", check.Warning, []string{"ecr:DescribeImages"}},
		{[]string{"ecr:DescribeImages", "ecr:ListImages"}, "list", check.Failed, []string{"ecr:ListImages"}},
		{[]string{"ecr:BatchGetImage"}, "pull", check.Failed, []string{"ecr:BatchGetImage"}},
		{[]string{"ecr:BatchCheckLayerAvailability"}, "pull", check.Failed, []string{"ecr:BatchCheckLayerAvailability"}},
		{[]string{"ecr:GetDownloadUrlForLayer"}, "pull", check.Failed, []string{"ecr:GetDownloadUrlForLayer"}},
		{[]string{"ecr:CreateRepository"}, "create", check.Failed, []string{"ecr:CreateRepository"}},
		{[]string{"ecr:InitiateLayerUpload"}, "push", check.Failed, []string{"ecr:InitiateLayerUpload"}},
		{[]string{"ecr:UploadLayerPart"}, "push", check.Failed, []string{"ecr:UploadLayerPart"}},
		{[]string{"ecr:CompleteLayerUpload"}, "push", check.Failed, []string{"ecr:CompleteLayerUpload"}},
		{[]string{"ecr:PutImage"}, "push", check.Failed, []string{"ecr:PutImage"}},
		{[]string{"ecr:ListImageReferrers"}, "referrers", check.Failed, []string{"ecr:ListImageReferrers"}},
		{[]string{"ecr:BatchDeleteImage"}, "delete", check.Skipped, []string{"ecr:BatchDeleteImage"}},
		// without deletions a push is rehearsed, and each step is still told apart
		{[]string{"ecr:BatchDeleteImage", "ecr:InitiateLayerUpload"}, "push", check.Failed, []string{"ecr:InitiateLayerUpload"}},
		{[]string{"ecr:BatchDeleteImage", "ecr:UploadLayerPart"}, "push", check.Failed, []string{"ecr:UploadLayerPart"}},
		{[]string{"ecr:BatchDeleteImage", "ecr:CompleteLayerUpload"}, "push", check.Failed, []string{"ecr:CompleteLayerUpload"}},
		{[]string{"ecr:BatchDeleteImage", "ecr:PutImage"}, "push", check.Failed, []string{"ecr:PutImage"}},
	} {
		t.Run(strings.Join(c.deny, " ")+" "+c.check, func(t *testing.T) {
			e := &providertest.ECR{Denied: c.deny}
			b := cloud(t, &e.Registry, "", "team/app", "team/web")
			lines, host := b.startECR(e, "team/app", "team/web")
			before := tagged(&e.Registry)
			between(b, host, lines, `"team/**"`)
			b.expect(c.check, c.state, c.words...)
			if after := tagged(&e.Registry); after != before {
				t.Errorf("it held\n%sand now\n%s", before, after)
			}
			if got := b.look(exitOf(c.state), "x")["x"]["identity"]; got.State == check.OK && got.Detail != "arn:aws:iam::123456789012:user/robot" {
				t.Errorf("identity: %+v", got)
			}
		})
	}
}

func exitOf(state check.State) int {
	if state == check.Failed {
		return exitFailed
	}
	return exitDone
}

// TestCheckECREmpty: a destination without the routes' repositories gets one of
// the check's own, where that can be deleted again.
func TestCheckECREmpty(t *testing.T) {
	route := "  - {name: prod, from: eu, to: [x], repositories: {include: [\"team/**\"]}}\n"
	for _, c := range []struct {
		deny         string
		create, push check.State
		words        string // of the push's hint
	}{
		{"", check.OK, check.OK, ""},
		{"ecr:DeleteRepository", check.Skipped, check.Skipped, "ecr:DeleteRepository"},
		{"ecr:CreateRepository", check.Failed, check.Skipped, ""},
		{"ecr:BatchDeleteImage", check.OK, check.OK, ""},
	} {
		t.Run(c.deny, func(t *testing.T) {
			e := &providertest.ECR{Denied: []string{c.deny}}
			b := newBench(t, starRoute, "eu")
			b.image("eu", "team/app", "v1", "one")
			lines, host := b.startECR(e)
			b.write(fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ndata: %s\nregistries:\n  eu: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}\n"+
				"  x: {%s, address: %q, plainHTTP: true}\nroutes:\n%s", filepath.Join(b.dir, "data"), b.servers["eu"].Listener.Addr(), lines, host, route))
			got := b.look(exitOf(c.create), "x")["x"]
			if got["create"].State != c.create || got["push"].State != c.push || !strings.Contains(got["push"].Hint, c.words) {
				t.Errorf("create %+v\npush %+v", got["create"], got["push"])
			}
			if _, there := e.Made("team/twinport-check"); there || len(e.Registry.Tags("team/twinport-check")) > 0 {
				t.Error("its repository was left")
			}
			if c.create == check.OK && e.Calls("CreateRepository") != 1 {
				t.Errorf("%d repositories were made", e.Calls("CreateRepository"))
			}
		})
	}
}

// TestCheckSQS takes away what fetching events needs.
func TestCheckSQS(t *testing.T) {
	for _, c := range []struct {
		deny  string
		state check.State
		word  string
	}{
		{"", check.OK, ""},
		{"sqs:ReceiveMessage", check.Failed, "sqs:ReceiveMessage"},
		{"sqs:DeleteMessage", check.Failed, "sqs:DeleteMessage"},
		{"sqs:GetQueueAttributes", check.Warning, "sqs:GetQueueAttributes"},
	} {
		t.Run(c.deny, func(t *testing.T) {
			e := &providertest.ECR{}
			b := cloud(t, &e.Registry, "", "team/app", "team/web")
			lines, host := b.startECR(e, "team/app", "team/web")
			q := &providertest.SQS{Denied: map[string]bool{c.deny: true}}
			server := httptest.NewServer(q)
			t.Cleanup(server.Close)
			between(b, host, lines+fmt.Sprintf(", events: {sqs: %q}", server.URL+"/123456789012/ecr-pushes"), `"team/**"`)
			q.Send("a message that waits")
			b.expect("events", c.state, c.word)
			if q.Left() != 1 {
				t.Error("a message was taken away")
			}
		})
	}
}

// TestCheckACR takes actions of Azure's roles away.
func TestCheckACR(t *testing.T) {
	all := []string{"pull", "push", "delete", "metadata_read", "catalog"}
	for _, c := range []struct {
		deny  string
		check string
		state check.State
		words []string
	}{
		{"", "push", check.OK, nil},
		{"pull", "pull", check.Failed, []string{"AcrPull", "Repository Reader"}}, // AcrPush has both
		{"push", "push", check.Failed, []string{"AcrPush", "Repository Writer"}},
		{"delete", "delete", check.Skipped, []string{"AcrDelete", "Repository Contributor"}},
		{"catalog", "list", check.Failed, []string{"Repository Catalog Lister", "repositories.include"}},
		{"metadata_read", "list", check.Warning, []string{"AcrPull"}},
	} {
		t.Run(c.deny+" "+c.check, func(t *testing.T) {
			for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
				t.Setenv(name, "")
			}
			fake := &providertest.ACR{
				Upstream: &providertest.Fake{}, Tenant: "11111111-2222-3333-4444-555555555555", Client: "66666666-7777-8888-9999-000000000000", Secret: "s3cr3t-of-the-principal",
				May: slices.DeleteFunc(slices.Clone(all), func(action string) bool { return action == c.deny }),
			}
			b := cloud(t, fake.Upstream, "", "team/app", "team/web")
			server := httptest.NewTLSServer(fake)
			t.Cleanup(server.Close)
			entra := httptest.NewTLSServer(fake.Entra())
			t.Cleanup(entra.Close)
			t.Setenv("AZURE_AUTHORITY_HOST", entra.URL)
			fake.Service = server.Listener.Addr().String()
			ca := filepath.Join(b.dir, "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: entra.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			before := tagged(fake.Upstream)
			also := ""
			if c.deny == "pull" {
				also = "push"
			}
			between(b, fake.Service, fmt.Sprintf("kind: acr, tls: {ca: %q}, auth: {azure: {tenant: %q, client: %q, secret: %q}}", ca, fake.Tenant, fake.Client, fake.Secret), `"team/**"`)
			b.expectWith(also, c.check, c.state, c.words...)
			if after := tagged(fake.Upstream); after != before {
				t.Errorf("it held\n%sand now\n%s", before, after)
			}
			who := b.look(exitOf(c.state), "x")["x"]["identity"]
			for _, word := range []string{"client " + fake.Client, "object 99999999-8888-7777-6666-555555555555", "tenant " + fake.Tenant} {
				if !strings.Contains(who.Detail, word) {
					t.Errorf("identity: %+v does not tell %s", who, word)
				}
			}
		})
	}
}

// TestCheckGoogle takes permissions of Artifact Registry and Pub/Sub away.
func TestCheckGoogle(t *testing.T) {
	all := []string{"upload", "download", "delete", "list", "create", "consume"}
	for _, c := range []struct {
		deny      string
		immutable bool
		check     string
		state     check.State
		words     []string
	}{
		{"", false, "push", check.OK, nil},
		{"", true, "push", check.OK, nil},
		{"download", false, "list", check.Failed, []string{"roles/artifactregistry.reader"}},
		{"upload", false, "push", check.Failed, []string{"roles/artifactregistry.writer"}},
		{"delete", false, "delete", check.Skipped, []string{"roles/artifactregistry.repoAdmin"}},
		{"list", false, "list", check.Failed, []string{"roles/artifactregistry.reader"}},
		{"create", false, "create", check.Failed, []string{"roles/artifactregistry.admin"}},
		{"consume", false, "events", check.Failed, []string{"roles/pubsub.subscriber"}},
	} {
		t.Run(fmt.Sprintf("%s %v %s", c.deny, c.immutable, c.check), func(t *testing.T) {
			for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"} {
				t.Setenv(name, "")
			}
			fake := &providertest.Google{
				Upstream: &providertest.Fake{}, Project: "acme-prod", Repositories: []string{"team"},
				May: slices.DeleteFunc(slices.Clone(all), func(permission string) bool { return permission == c.deny }),
			}
			if c.immutable {
				fake.Immutable = fake.Repositories
			}
			b := cloud(t, fake.Upstream, "acme-prod/", "team/app", "team/web")
			serve := func(h http.Handler) *httptest.Server {
				s := httptest.NewServer(h)
				t.Cleanup(s.Close)
				return s
			}
			server, tokens, api := serve(fake), serve(fake.Token()), serve(fake.API())
			pubsub := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				held := []string{}
				if slices.Contains(fake.May, "consume") {
					held = []string{"pubsub.subscriptions.consume"}
				}
				if !strings.HasSuffix(r.URL.Path, "/projects/acme-prod/subscriptions/twinport:testIamPermissions") {
					http.NotFound(w, r)
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"permissions": held})
			}))
			t.Setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY", api.URL+"/")
			t.Setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB", pubsub.URL)
			fake.Location = server.Listener.Addr().String()
			key := filepath.Join(b.dir, "key.json")
			if err := os.WriteFile(key, fake.KeyFile(tokens.URL+"/token"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := tagged(fake.Upstream)
			between(b, fake.Location+"/acme-prod", fmt.Sprintf(
				"kind: gcr, auth: {google: {file: %q}}, redirects: {allow: [%q]}, create: {missing: true}, events: {pubsub: projects/acme-prod/subscriptions/twinport}",
				key, api.Listener.Addr()), `"team/**"`)
			b.expect(c.check, c.state, c.words...)
			if after := tagged(fake.Upstream); after != before {
				t.Errorf("it held\n%sand now\n%s", before, after)
			}
			told := b.look(exitOf(c.state), "x")["x"]
			if who := told["identity"]; who.Detail != "twinport@acme-prod.iam.gserviceaccount.com" {
				t.Errorf("identity: %+v", who)
			}
			if c.deny == "" && c.immutable != strings.Contains(told["push"].Detail, "no tag") {
				t.Errorf("immutable tags %v: %+v", c.immutable, told["push"])
			}
		})
	}
}
