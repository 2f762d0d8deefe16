package intake

import (
	"context"
	"errors"
	"net/http"

	"github.com/twinport/twinport/replicator/oci"
)

// A Witness is a Decoder whose senders sign what they send in a way that has to
// be asked about elsewhere (never at a registry), or ask to be confirmed before
// they send. It is asked once the secret is right, bounds itself to seconds,
// and needs no more of a request than this.
type Witness interface {
	// Prove gives oci.ErrDenied for what is forged or may not be; any other
	// error: it cannot be told now, the sender is to try again. known tells
	// whether a secret was shown, rather than none asked for.
	Prove(ctx context.Context, header http.Header, body []byte, known bool) error
}

// witnessed asks the decoder, where it is a witness; a status of 0: go on.
func (registry Registry) witnessed(r *http.Request, body []byte) reply {
	witness, ok := registry.Decoder.(Witness)
	if !ok {
		return reply{}
	}
	err := witness.Prove(r.Context(), r.Header, body, len(registry.Secrets) > 0)
	switch {
	case err == nil:
		return reply{}
	case errors.Is(err, oci.ErrDenied):
		return reply{status: http.StatusUnauthorized, problem: "the sender's signature is not taken", detail: err}
	}
	return reply{status: http.StatusServiceUnavailable, problem: "the sender's signature cannot be proven now, send it again", detail: err}
}
