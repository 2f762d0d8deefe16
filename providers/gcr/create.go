package gcr

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// making a repository takes seconds; pollEvery and pollFor bound the wait.
	pollEvery = time.Second
	pollFor   = 2 * time.Minute
)

// An operation is a long one (google.longrunning.Operation).
type operation struct {
	Name  string `json:"name"`
	Done  bool   `json:"done"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// make makes a repository and waits until it is there; somebody else's having
// made it meanwhile is as good. One at a time, for many pushes find it missing
// at once.
func (r *Registry) make(ctx context.Context, at place) error {
	r.making.Lock()
	defer r.making.Unlock()
	if there, err := r.exists(ctx, at); err == nil && there {
		return nil
	}
	repository := map[string]any{"format": "DOCKER"}
	if r.create.ImmutableTags {
		repository["dockerConfig"] = map[string]bool{"immutableTags": true}
	}
	if r.create.KMS != "" {
		repository["kmsKeyName"] = r.create.KMS
	}
	if len(r.create.Labels) > 0 {
		repository["labels"] = r.create.Labels
	}
	var op operation
	status, err := r.askFor(ctx, oci.OpCreate, http.MethodPost, "projects/"+at.project+"/locations/"+at.location+"/repositories",
		url.Values{"repositoryId": {at.repository}}, repository, &op, http.StatusConflict)
	if err == nil && status == http.StatusConflict {
		return nil // somebody has made it
	}
	deadline := time.Now().Add(pollFor)
	for err == nil && !op.Done {
		if op.Name == "" || time.Now().After(deadline) {
			return r.Fault(oci.RegistryError{Operation: "create " + at.parent(), Kind: oci.ErrInterrupted, Message: "it is not made yet"})
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		name := op.Name
		op = operation{}
		err = r.ask(ctx, oci.OpCreate, http.MethodGet, name, nil, nil, &op)
		if err == nil && op.Name == "" {
			op.Name = name
		}
	}
	if err == nil && op.Error != nil {
		return r.Fault(oci.RegistryError{Operation: "create " + at.parent(), Kind: oci.ErrRefused, Message: op.Error.Message, Hint: "see why with `" + at.command() + "`"})
	}
	return err
}

// exists asks for a repository.
func (r *Registry) exists(ctx context.Context, at place) (bool, error) {
	err := r.ask(ctx, oci.OpList, http.MethodGet, at.parent(), nil, nil, nil)
	if errors.Is(err, oci.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// WouldCreate tells whether a push would make the repository.
func (p *Repository) WouldCreate(ctx context.Context) (bool, error) {
	at, err := p.place()
	if err != nil || p.registry.create == nil {
		return false, err
	}
	there, err := p.registry.exists(ctx, at)
	return !there && err == nil, err
}
