package harbor

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// A Registry is a Harbor.
type Registry struct {
	*generic.Registry
	create *generic.Create
}

// A Repository is one of a Harbor; its first part is the project, which has to
// exist before a push and is made where the config says so.
type Repository struct {
	*generic.Repository
	registry *Registry
}

// Repository gives a handle; nothing is asked of the registry.
func (r *Registry) Repository(name string) oci.Repository {
	return &Repository{Repository: r.Open(name), registry: r}
}

// PushManifest stores a manifest.
func (p *Repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	pushed, err := p.Repository.PushManifest(ctx, reference, m)
	if again, err := p.make(ctx, err); !again {
		return pushed, err
	}
	return p.Repository.PushManifest(ctx, reference, m)
}

// Start opens an upload.
func (p *Repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	u, mounted, err := p.Repository.Start(ctx, desc, from)
	if again, err := p.make(ctx, err); !again {
		return u, mounted, err
	}
	return p.Repository.Start(ctx, desc, from)
}

func (p *Repository) project() (string, bool) {
	project, _, ok := strings.Cut(p.FullName(), "/")
	return project, ok && oci.CheckRepository(p.FullName()) == nil
}

// make makes the project that a push has found missing, and tells whether to
// push again.
func (p *Repository) make(ctx context.Context, err error) (again bool, _ error) {
	how := p.registry.create
	project, ok := p.project()
	if how == nil || !ok || !errors.Is(err, oci.ErrRepositoryUnknown) {
		return false, err
	}
	metadata := map[string]string{"public": "false"}
	if how.Scan {
		metadata["auto_scan"] = "true"
	}
	body, encodeErr := json.Marshal(map[string]any{"project_name": project, "metadata": metadata})
	if encodeErr != nil {
		return false, encodeErr
	}
	_, err = p.registry.ask(ctx, oci.OpCreate, "create project "+project, "/api/v2.0/projects", nil, generic.Request{
		Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}, Body: body,
		Accept: []int{http.StatusCreated, http.StatusConflict}, // or somebody has made it meanwhile
	})
	return err == nil, err
}

// WouldCreate tells whether a push would make the project.
func (p *Repository) WouldCreate(ctx context.Context) (bool, error) {
	project, ok := p.project()
	if p.registry.create == nil || !ok {
		return false, nil
	}
	// 200: taken. 404: free. (Harbor's `HEAD /projects`.)
	answer, err := p.registry.ask(ctx, oci.OpList, "look for project "+project, "/api/v2.0/projects", url.Values{"project_name": {project}}, generic.Request{
		Method: http.MethodHead, Accept: []int{http.StatusOK, http.StatusNotFound},
	})
	return err == nil && answer.Status == http.StatusNotFound, err
}

// ask makes a request of Harbor's API as the account itself.
func (r *Registry) ask(ctx context.Context, op oci.Operation, what, path string, query url.Values, q generic.Request) (generic.Answer, error) {
	login, err := r.Basic(ctx)
	if err != nil {
		return generic.Answer{}, err
	}
	u := r.Address()
	u.Path, u.RawQuery = path, query.Encode()
	q.Operation, q.What = op, what
	return r.AskAt(ctx, u, login, q)
}
