package harbor

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

var (
	_ oci.CreationTester = (*Registry)(nil)
	_ oci.TagFixer       = (*Repository)(nil)
)

// Ready tells whether the repository's project is there.
func (r *Registry) Ready(ctx context.Context, repository string) error {
	p := &Repository{Repository: r.Open(repository), registry: r}
	project, ok := p.project()
	if !ok {
		return r.Fault(oci.RegistryError{Operation: "look for the project of " + p.FullName(), Kind: oci.ErrRefused, Message: "a name in Harbor begins with a project"})
	}
	answer, err := r.ask(ctx, oci.OpList, "look for project "+project, "/api/v2.0/projects", url.Values{"project_name": {project}}, generic.Request{
		Method: http.MethodHead, Accept: []int{http.StatusOK, http.StatusNotFound},
	})
	if err == nil && answer.Status == http.StatusNotFound {
		err = r.Fault(oci.RegistryError{
			Operation: "look for project " + project, Status: answer.Status, Kind: oci.ErrRepositoryUnknown, Message: "no such project",
			Hint: "create the project in Harbor, or set create: {missing: true} for this registry",
		})
	}
	return err
}

// MayCreate asks for a project that is there, the repository's: Harbor decides
// whether the account may before it answers that it exists.
func (r *Registry) MayCreate(ctx context.Context, repository string) error {
	if err := r.Ready(ctx, repository); err != nil {
		return err
	}
	project, _ := (&Repository{Repository: r.Open(repository), registry: r}).project()
	body, err := json.Marshal(map[string]any{"project_name": project})
	if err != nil {
		return err
	}
	_, err = r.ask(ctx, oci.OpCreate, "create project "+project, "/api/v2.0/projects", nil, generic.Request{
		Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Accept: []int{http.StatusConflict},
	})
	return err
}

// FixesTags asks whether any immutability rule of the project is on: an artifact
// with a tag that a rule covers cannot be deleted, and which it covers is Harbor's
// to match.
func (p *Repository) FixesTags(ctx context.Context) (bool, error) {
	project, ok := p.project()
	if !ok {
		return false, nil
	}
	what := "GET immutability rules of " + project
	answer, err := p.registry.ask(ctx, oci.OpList, what, "/api/v2.0/projects/"+project+"/immutabletagrules", url.Values{"page_size": {"100"}}, generic.Request{Limit: maxPage})
	if err != nil {
		return false, err
	}
	var rules []struct {
		Disabled bool `json:"disabled"`
	}
	if json.Unmarshal(answer.Body, &rules) != nil {
		return false, p.registry.Senseless(what, "the answer is no list")
	}
	for _, rule := range rules {
		if !rule.Disabled {
			return true, nil
		}
	}
	return false, nil
}
