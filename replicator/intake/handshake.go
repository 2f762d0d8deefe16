package intake

import (
	"context"
	"net/http"
	"time"
)

const (
	requestOrigin = "WebHook-Request-Origin"
	maxOrigin     = 255
	// verifyTime bounds what a proof of the sender's own kind may take: its
	// keys may have to be fetched.
	verifyTime = 5 * time.Second
)

// admit looks at what a request shows for itself before its body is read. A
// reply with a status ends the request.
func (registry Registry) admit(r *http.Request) (proof, reply) {
	p, err := registry.prove(r)
	if err != nil {
		return p, reply{status: http.StatusServiceUnavailable, problem: "the webhook secret cannot be read", detail: err}
	}
	if !p.given && registry.Verify != nil {
		ctx, cancel := context.WithTimeout(r.Context(), verifyTime)
		defer cancel()
		if p.given, err = registry.Verify(ctx, r.Header); err != nil {
			return p, reply{status: http.StatusServiceUnavailable, problem: "the sender's token cannot be checked now", detail: err}
		}
	}
	return p, reply{}
}

// handshake answers a sender that asks whether it may send: who shows the
// secret may, from where the registry's kind sends.
func (i *Intake) handshake(r *http.Request, registry Registry) reply {
	p, a := registry.admit(r)
	origin := r.Header.Get(requestOrigin)
	host, ok := registry.Decoder.(Host)
	switch {
	case a.status != 0:
		return a
	case !p.given:
		return reply{status: http.StatusUnauthorized, problem: "wrong or missing webhook secret"}
	case !ok || len(origin) > maxOrigin || !host.Allows(origin):
		return reply{status: http.StatusForbidden, problem: "this origin does not send for registries of this kind"}
	}
	return reply{status: http.StatusOK, origin: origin}
}
