// Package clouds starts fakes of Amazon ECR with SQS, Azure Container Registry
// with Entra, and Google Artifact Registry with its metadata server and Pub/Sub,
// each before a real registry that keeps the content, and tells how twinport is
// pointed at them: by the settings that the providers' own SDKs document. They
// refuse what the real ones refuse, redirect blobs to another host, fail the
// test when a credential arrives there, and send the events of pushes.
//
// One daemon talks to one fake of each: AWS_ENDPOINT_URL names one address for
// all of AWS's services.
package clouds

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/twinport/twinport/integration/harness"
	"github.com/twinport/twinport/providers/providertest"
)

// The names of the fakes in configs, and what they are in.
const (
	ECR = "ecr"
	ACR = "acr"
	GCR = "gcr"

	Account    = "123456789012"
	Region     = "eu-west-1"
	Project    = "acme-prod"
	Repository = "team"
)

// Options say how the fakes are started; the zero value keeps content in memory.
type Options struct {
	// Upstream is the host:port of the registry that keeps a fake's content, by
	// the fake's name.
	Upstream map[string]string
	// Queues has events fetched, from SQS and Pub/Sub, instead of posted.
	Queues bool
}

// Clouds are the fakes, started.
type Clouds struct {
	Amazon *providertest.ECR
	Azure  *providertest.ACR
	Google *providertest.Google
	Queue  *providertest.SQS
	PubSub *PubSub
	// Addr is each registry's address as host:port[/prefix], by name.
	Addr map[string]string
	// Env points the SDKs of twinport's process at the fakes, "NAME=value".
	Env []string
	// Hooks post the events of pushes, by name, until they are stopped.
	Hooks map[string]*Hook

	options Options
	storage map[string]string // by name: where blobs are redirected
	api     string            // of Artifact Registry, host:port
	queue   string            // its URL
}

const (
	tenant = "11111111-2222-3333-4444-555555555555"
	client = "66666666-7777-8888-9999-000000000000"
	secret = "secret-of-the-principal"
)

// Start starts the fakes until the test ends.
func Start(t harness.T, o Options) *Clouds {
	t.Helper()
	c := &Clouds{
		Amazon: &providertest.ECR{Account: Account, Region: Region}, Queue: &providertest.SQS{},
		Azure: &providertest.ACR{
			Upstream: &providertest.Fake{}, May: []string{"pull", "push", "metadata_read", "catalog"},
			Tenant: tenant, Client: client, Secret: secret,
		},
		Google: &providertest.Google{
			Upstream: &providertest.Fake{}, May: []string{"upload", "download", "list", "create"},
			Project: Project, Repositories: []string{Repository},
		},
		Addr: make(map[string]string), Hooks: make(map[string]*Hook), storage: make(map[string]string), options: o,
	}
	for name, fake := range map[string]*providertest.Fake{ECR: &c.Amazon.Registry, ACR: c.Azure.Upstream, GCR: c.Google.Upstream} {
		if o.Upstream[name] != "" {
			fake.Upstream = providertest.Proxy("http://" + o.Upstream[name])
		}
		fake.Blobs = serve(t, providertest.Storage{Fake: fake, Fail: t.Errorf})
		c.storage[name] = strings.TrimPrefix(fake.Blobs, "http://")
		c.Hooks[name] = startHook(t)
	}
	c.PubSub = startPubSub(t, c.Google)
	c.tell()
	dir := t.TempDir()
	amazon, google := serve(t, c.Amazon), serve(t, c.Google)
	c.queue = serve(t, c.Queue) + "/" + Account + "/ecr-pushes"
	api := serve(t, c.Google.API())
	c.api = strings.TrimPrefix(api, "http://")
	c.Addr[ECR] = strings.TrimPrefix(amazon, "http://")
	c.Addr[ACR] = strings.TrimPrefix(serve(t, c.Azure), "http://")
	host := strings.TrimPrefix(google, "http://")
	c.Addr[GCR] = host + "/" + Project + "/" + Repository
	c.Azure.Service = c.Addr[ACR]
	c.Google.Location = host // at a real address it is what comes before -docker.pkg.dev
	c.Env = append([]string{
		"AWS_ENDPOINT_URL=" + amazon, "AWS_ACCESS_KEY_ID=AKIAFAKE", "AWS_SECRET_ACCESS_KEY=secret-of-the-key", "AWS_SESSION_TOKEN=",
		"AWS_PROFILE=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"GCE_METADATA_HOST=" + strings.TrimPrefix(serve(t, c.Google.Metadata()), "http://"), "GOOGLE_APPLICATION_CREDENTIALS=",
		"CLOUDSDK_CONFIG=" + filepath.Join(dir, "gcloud"),
		"CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY=" + api + "/", "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB=" + serve(t, c.PubSub) + "/",
	}, c.entra(t, dir)...)
	return c
}

// serve serves a handler on loopback until the test ends.
func serve(t harness.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// entra serves Entra, which speaks to https alone, and gives the environment
// that leads to it: its certificate is the one that the daemon trusts.
func (c *Clouds) entra(t harness.T, dir string) []string {
	t.Helper()
	s := httptest.NewTLSServer(c.Azure.Entra())
	t.Cleanup(s.Close)
	ca := filepath.Join(dir, "entra.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	return []string{
		"AZURE_AUTHORITY_HOST=" + s.URL, "SSL_CERT_FILE=" + ca, "AZURE_TOKEN_CREDENTIALS=prod",
		"AZURE_TENANT_ID=" + tenant, "AZURE_CLIENT_ID=" + client, "AZURE_CLIENT_SECRET=" + secret,
	}
}

// tell sends the events of pushes to queues and hooks.
func (c *Clouds) tell() {
	c.Amazon.Told = func(event []byte) {
		c.Queue.Send(string(event))
		c.Hooks[ECR].send(event)
	}
	c.Azure.Told = c.Hooks[ACR].send
	c.Google.Told = func(data []byte) { c.Hooks[GCR].send(c.PubSub.publish(data)) }
}

// Registries are the fakes as twinport's config names them.
func (c *Clouds) Registries() []harness.RegistryConfig {
	registry := func(name string, lines ...string) harness.RegistryConfig {
		allow := `"` + c.storage[name] + `"`
		if name == GCR {
			allow += `, "` + c.api + `"`
		}
		return harness.RegistryConfig{Name: name, Kind: name, Addr: c.Addr[name], Lines: append(lines, "redirects: {allow: ["+allow+"]}")}
	}
	ecr, gcr := []string{"region: " + Region, "create: {missing: true}"}, []string{"create: {missing: true}"}
	if c.options.Queues {
		ecr = append(ecr, `events: {sqs: "`+c.queue+`"}`)
		gcr = append(gcr, "events: {pubsub: "+subscription+"}")
	}
	return []harness.RegistryConfig{registry(ECR, ecr...), registry(ACR), registry(GCR, gcr...)}
}

// Post has a fake's events posted to the daemon whose webhooks are below base,
// each in its sender's way.
func (c *Clouds) Post(name, base string) {
	url, secret := base+"/hooks/"+name, harness.Secret(name)
	switch name {
	case ECR: // an API destination whose connection is Basic
		c.Hooks[name].To(url, "Basic "+base64.StdEncoding.EncodeToString([]byte("eventbridge:"+secret)))
	case ACR: // a custom header
		c.Hooks[name].To(url, "Bearer "+secret)
	case GCR: // a push subscription can set none
		c.Hooks[name].To(url+"?key="+secret, "")
	}
}

// MakeRepository makes a repository of the fake ECR, which whoever pushes there
// has to do first.
func (c *Clouds) MakeRepository(name string) {
	c.Amazon.Make(name, providertest.ECRRepository{Mutability: "MUTABLE"})
}

// Login is who may push to a fake, as docker login takes it.
func (c *Clouds) Login(t harness.T, name string) (username, password string) {
	t.Helper()
	switch name {
	case ECR:
		password, _ = c.Amazon.GiveToken()
		return "AWS", password
	case ACR:
		c.Azure.GiveRefresh("refresh-token-of-a-person")
		return "00000000-0000-0000-0000-000000000000", "refresh-token-of-a-person"
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/computeMetadata/v1/instance/service-accounts/default/token", nil)
	r.Header.Set("Metadata-Flavor", "Google")
	c.Google.Metadata().ServeHTTP(w, r)
	var token struct {
		Value string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &token); err != nil {
		t.Fatalf("token of the metadata server: %v", err)
	}
	return "oauth2accesstoken", token.Value
}
