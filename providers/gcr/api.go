package gcr

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// endpointOverride is gcloud's own setting for Artifact Registry's address.
const endpointOverride = "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY"

func apiAddress() string {
	if own := os.Getenv(endpointOverride); own != "" {
		return strings.TrimSuffix(own, "/")
	}
	return "https://artifactregistry.googleapis.com"
}

// ask asks Artifact Registry's REST API by hand: its client library brings gRPC
// and many MiB for these few calls. path is without /v1/ and made of checked
// names. Without an access token (a key as Basic password, anonymous) there is
// no asking: ErrDenied.
func (r *Registry) ask(ctx context.Context, op oci.Operation, method, path string, query url.Values, body, into any) error {
	_, err := r.askFor(ctx, op, method, path, query, body, into)
	return err
}

// askFor takes further statuses for an answer, whose body is then not read.
func (r *Registry) askFor(ctx context.Context, op oci.Operation, method, path string, query url.Values, body, into any, accept ...int) (int, error) {
	what := method + " " + path
	username, token, err := r.Credentials(ctx)
	if err != nil {
		return 0, err
	}
	if username != tokenUser || token == "" {
		return 0, r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrDenied, Message: "the login has no access token", Hint: "use auth.google or the process's own identity"})
	}
	at, err := url.Parse(r.api + "/v1/" + path)
	if err != nil {
		return 0, r.Senseless(what, "the API's address is none")
	}
	at.RawQuery = query.Encode()
	request := generic.Request{Operation: op, What: what, Method: method, Limit: maxPage, Accept: append([]int{http.StatusOK}, accept...)}
	if body != nil {
		if request.Body, err = json.Marshal(body); err != nil {
			return 0, err
		}
		request.Header = http.Header{"Content-Type": {"application/json"}}
	}
	a, err := r.AskAt(ctx, at, "Bearer "+token, request)
	if err != nil {
		return 0, err
	}
	if into != nil && a.Status == http.StatusOK && json.Unmarshal(a.Body, into) != nil {
		return a.Status, r.Senseless(what, "the answer is not the API's JSON")
	}
	return a.Status, nil
}
