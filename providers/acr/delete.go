package acr

import (
	"context"
	"net/http"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

var _ oci.TagDeleter = (*Repository)(nil)

// DeleteTag removes a tag by ACR's own API (Azure REST, "Tag - Delete"), which
// leaves the manifest: a delete by the registry's API takes all its tags.
func (p *Repository) DeleteTag(ctx context.Context, tag string) error {
	if err := oci.CheckTag(tag); err != nil {
		return err
	}
	full := p.FullName()
	if err := oci.CheckRepository(full); err != nil {
		return err
	}
	_, err := p.registry.Ask(ctx, generic.Request{
		Operation: oci.OpDelete, What: "DELETE tag " + full + ":" + tag, Method: http.MethodDelete, Path: "/acr/v1/" + full + "/_tags/" + tag,
		Scopes: []string{"repository:" + full + ":delete"}, Accept: []int{http.StatusOK, http.StatusAccepted},
	})
	if err == nil {
		p.registry.pending.forget(full, tag) // that it is not found is the truth now
	}
	return err
}
