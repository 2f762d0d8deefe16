package gcr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

var (
	_ oci.Introspector   = (*Registry)(nil)
	_ oci.CreationTester = (*Registry)(nil)
	_ oci.TagFixer       = (*Repository)(nil)
)

// Account is the service account's e-mail, once the registry has taken its token.
func (r *Registry) Account(ctx context.Context) (string, error) {
	if r.id == nil {
		return r.Registry.Account(ctx)
	}
	name := r.id.name(ctx)
	if err := r.LoggedIn(ctx); err != nil {
		return name, err
	}
	if name == "" {
		user, _, err := r.Credentials(ctx)
		if err != nil {
			return "", err
		}
		return user + " (docker's config)", nil
	}
	return name, nil
}

// name is whom the identity is, empty where nothing tells.
func (id *identity) name(ctx context.Context) string {
	file := id.file
	if file == "" {
		file = defaultFile()
	}
	if file == "" {
		return metadataServer{id.metadata}.email(ctx)
	}
	text, err := readKey(file)
	var k key
	if err != nil || json.Unmarshal(text, &k) != nil {
		return ""
	}
	return k.name()
}

func (k key) name() string {
	if _, rest, ok := strings.Cut(k.ImpersonationURL, "/serviceAccounts/"); ok {
		email, _, _ := strings.Cut(rest, ":")
		return email
	}
	switch k.Type {
	case "service_account":
		return k.ClientEmail
	case "external_account":
		return "the workload identity of " + k.Audience
	case "authorized_user":
		return "a person's login (application default credentials)"
	}
	return ""
}

// email asks the metadata server whose tokens it gives.
func (m metadataServer) email(ctx context.Context) string {
	host := os.Getenv("GCE_METADATA_HOST")
	if host == "" {
		host = "metadata.google.internal"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/email", nil)
	if err != nil {
		return ""
	}
	req.Header.Set("Metadata-Flavor", "Google")
	text, err := send(m.client, req)
	if err != nil || len(text) > 320 {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Ready tells whether the repository that an image's path lies in is there.
func (r *Registry) Ready(ctx context.Context, repository string) error {
	at, err := (&Repository{Repository: r.Open(repository), registry: r}).place()
	if err != nil {
		return err
	}
	there, err := r.exists(ctx, at)
	if err == nil && !there {
		err = r.Fault(oci.RegistryError{Operation: "GET " + at.parent(), Kind: oci.ErrRepositoryUnknown, Message: "no such repository", Hint: "make it with `" + at.command() + "`"})
	}
	return err
}

// MayCreate asks for a repository that is there: Google decides whether the
// identity may before it answers that it exists.
func (r *Registry) MayCreate(ctx context.Context, repository string) error {
	if err := r.Ready(ctx, repository); err != nil {
		return err
	}
	at, err := (&Repository{Repository: r.Open(repository), registry: r}).place()
	if err != nil {
		return err
	}
	_, err = r.askFor(ctx, oci.OpCreate, http.MethodPost, "projects/"+at.project+"/locations/"+at.location+"/repositories",
		url.Values{"repositoryId": {at.repository}}, map[string]any{"format": "DOCKER"}, nil, http.StatusConflict)
	return err
}

// FixesTags asks whether the repository's tags are immutable: such a tag can
// neither be moved nor removed (Artifact Registry, "Immutable tags").
func (p *Repository) FixesTags(ctx context.Context) (bool, error) {
	at, err := p.place()
	if err != nil {
		return false, err
	}
	var doc struct {
		Docker struct {
			Immutable bool `json:"immutableTags"`
		} `json:"dockerConfig"`
	}
	err = p.registry.ask(ctx, oci.OpList, http.MethodGet, at.parent(), nil, nil, &doc)
	return doc.Docker.Immutable, err
}

// consume is what pulling and acknowledging need.
const consume = "pubsub.subscriptions.consume"

// Probe asks whether messages may be had, without having any: what may be tested
// so needs no permission itself (Pub/Sub, testIamPermissions). A subscription
// that does not exist has none to give.
func (q *Queue) Probe(ctx context.Context) (string, error) {
	var held struct {
		Permissions []string `json:"permissions"`
	}
	if err := q.ask(ctx, "testIamPermissions", map[string]any{"permissions": []string{consume}}, &held); err != nil {
		return "", err
	}
	if !slices.Contains(held.Permissions, consume) {
		return "", q.reg.Fault(oci.RegistryError{
			Operation: q.what("testIamPermissions"), Kind: oci.ErrDenied,
			Message: "the identity lacks " + consume + ", or there is no such subscription",
			Hint:    fmt.Sprintf("give the identity roles/pubsub.subscriber on %s, or make it with `gcloud pubsub subscriptions create NAME --topic gcr`", q.subscription),
		})
	}
	return "messages of " + q.subscription + " may be had", nil
}
