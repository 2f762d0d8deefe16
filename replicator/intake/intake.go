// Package intake is the registries' door: `POST /hooks/{registry}`
// (deploy/docs/webhooks.md). It authenticates a webhook, bounds it, has the
// registry's decoder read it, checks every name against the specs' grammars and
// the registry's prefix, and answers 202 only when what it told has been accepted
// for good. Nothing a request says can name another registry than the one it was
// sent to (P10). Nothing is asked of a registry here.
package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	acceptTime = 10 * time.Second
	// retryAfter in seconds is what a sender is asked to wait where we cannot commit.
	retryAfter = 5
)

// A Decoder reads what one kind of registry sends; which one is asked follows
// from the config, never from the request. The body is valid JSON. Decoders
// keep no state and give no more than replicator.MaxWebhookEvents events.
type Decoder interface {
	Decode(header http.Header, body []byte) replicator.Decoded
}

// A Prover is a Decoder whose senders prove themselves by headers of their own,
// which no other kind is let in by.
type Prover interface {
	Shows(header http.Header) replicator.Shown
}

// An Opener is a Decoder whose senders may wrap the JSON: it is given the body
// after its signature was checked and gives the JSON, or the body as it is.
type Opener interface {
	Open(header http.Header, body []byte) []byte
}

// A Host is a Decoder whose senders first ask by OPTIONS whether they may send
// (CloudEvents' "HTTP 1.1 Web Hooks", section 4).
type Host interface {
	// Allows tells whether a WebHook-Request-Origin is a sender of this kind.
	Allows(origin string) bool
}

// A Registry is one that may send webhooks.
type Registry struct {
	Name string
	// Prefix of the registry's address: names outside it are ignored, and it
	// is taken off the others. Empty: none.
	Prefix string
	// Secrets are asked for anew with each request; any of them proves the
	// sender. None at all: whoever reaches the address may send.
	Secrets []func() (string, error)
	Decoder Decoder
	// Verify, where set, proves senders that show no secret by what only their
	// own kind can make, a signed token: whether they are who they have to be;
	// an error where that cannot be told now. It gets no more than the header.
	Verify func(ctx context.Context, header http.Header) (bool, error)
}

// Metrics counts answers: twinport_webhooks_total{registry,code}. The registry
// is empty where the request named none of ours.
type Metrics interface {
	Webhook(registry string, code int)
}

// Options are what an Intake works with.
type Options struct {
	// Accept stores what a request told, and returns when that is durable: how
	// many of the events made or renewed a job. sweepDue names registries that
	// may have changed in ways no event tells. An error is answered with 503.
	// Its context outlives the request: a sender that hangs up loses nothing.
	Accept func(ctx context.Context, events []replicator.Event, findings []replicator.Finding, sweepDue []string) (accepted int, err error)
	// Ahead is told of blobs whose manifests have not come yet: hints that may
	// be dropped. It must not block; optional.
	Ahead func(blobs []replicator.Blob)
	// Log may be nil; Metrics may be nil; Now is time.Now when nil.
	Log     *zap.Logger
	Metrics Metrics
	Now     func() time.Time
}

// An Intake serves `/hooks/{registry}`.
type Intake struct {
	accept     func(context.Context, []replicator.Event, []replicator.Finding, []string) (int, error)
	ahead      func([]replicator.Blob)
	log        quietLog
	metrics    Metrics
	now        func() time.Time
	registries atomic.Pointer[map[string]Registry]
	large      gate // bodies of senders that are known
	unproven   gate // bodies that must be read to know the sender
}

// New gives an Intake that knows no registry yet.
func New(o Options) *Intake {
	i := &Intake{accept: o.Accept, ahead: o.Ahead, metrics: o.Metrics, now: o.Now, large: make(gate, 8), unproven: make(gate, 2)}
	if i.now == nil {
		i.now = time.Now
	}
	log := o.Log
	if log == nil {
		log = zap.NewNop()
	}
	i.log = quietLog{log: log.With(zap.String("component", "intake")), now: i.now}
	i.Swap(nil)
	return i
}

// Swap replaces all registries at once: a reload.
func (i *Intake) Swap(registries []Registry) {
	named := make(map[string]Registry, len(registries))
	for _, r := range registries {
		named[r.Name] = r
	}
	i.registries.Store(&named)
}

// A reply is what a request is answered.
type reply struct {
	status            int
	accepted, ignored int
	// problem is told the sender in place of the counts; detail is for the log alone.
	problem string
	detail  error
	// body, where set, is JSON to answer in place of the counts.
	body []byte
	// origin, where set, may send from now on.
	origin string
}

// ServeHTTP answers one webhook.
func (i *Intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/hooks/")
	registry, known := (*i.registries.Load())[name]
	// A body nobody reads to its end must not hold the connection either.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	var a reply
	switch {
	case !ok || !known:
		a = reply{status: http.StatusNotFound, problem: "no registry of that name"}
	case r.Method == http.MethodOptions && r.Header.Get(requestOrigin) != "":
		a = i.handshake(r, registry)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		a = reply{status: http.StatusMethodNotAllowed, problem: "webhooks are sent with POST"}
	default:
		a = i.receive(r, registry, control)
	}
	switch a.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="twinport"`)
	case http.StatusUnsupportedMediaType:
		w.Header().Set("Accept-Encoding", "identity")
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if a.origin != "" {
		w.Header().Set("WebHook-Allowed-Origin", a.origin)
		w.Header().Set("WebHook-Allowed-Rate", "*")
		w.Header().Set("Allow", http.MethodPost)
	}
	i.log.answered(registry.Name, a)
	if i.metrics != nil {
		i.metrics.Webhook(registry.Name, a.status)
	}
	a.write(w)
}

func (a reply) write(w http.ResponseWriter) {
	var body any = struct {
		Accepted int `json:"accepted"`
		Ignored  int `json:"ignored"`
	}{a.accepted, a.ignored}
	if a.problem != "" {
		body = struct {
			Error string `json:"error"`
		}{a.problem}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.status)
	if a.body != nil && a.problem == "" {
		_, _ = w.Write(a.body)
		return
	}
	_ = json.NewEncoder(w).Encode(body) // the sender may be gone
}

// receive takes one POST to a registry of ours.
func (i *Intake) receive(r *http.Request, registry Registry, control *http.ResponseController) reply {
	proof, a := registry.admit(r)
	switch {
	case a.status != 0:
		return a
	case !proof.given && len(proof.signatures) == 0:
		return reply{status: http.StatusUnauthorized, problem: "wrong or missing webhook secret"}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return reply{status: http.StatusUnsupportedMediaType, problem: "send the body without a content encoding"}
	}
	gate := i.large
	if !proof.given {
		gate = i.unproven
	}
	body, release, err := readBody(r, gate)
	defer release()
	switch {
	case errors.Is(err, errTooLarge) && proof.given:
		return i.tooLarge(r.Context(), registry, overBound)
	case errors.Is(err, errTooLarge):
		return reply{status: http.StatusRequestEntityTooLarge, problem: overBound}
	case errors.Is(err, errBusy):
		return reply{status: http.StatusServiceUnavailable, problem: "too many large bodies at once", detail: err}
	case errors.Is(err, errTooSlow):
		return reply{status: http.StatusRequestTimeout, problem: "the body took too long", detail: err}
	case err != nil:
		return reply{status: http.StatusBadRequest, problem: "the body ended early", detail: err}
	}
	_ = control.SetReadDeadline(time.Time{}) // it would end the wait for the commit
	if !proof.given && !proof.signed(body) {
		return reply{status: http.StatusUnauthorized, problem: "wrong webhook signature"}
	}
	if opener, ok := registry.Decoder.(Opener); ok {
		body = opener.Open(r.Header, body)
	}
	if oci.CountValues(body) > oci.MaxValues { // decoded, it would take a hundred times as much
		return i.tooLarge(r.Context(), registry, fmt.Sprintf("the body holds more than %d values", oci.MaxValues))
	}
	if !json.Valid(body) {
		return reply{status: http.StatusBadRequest, problem: "the body is not JSON"}
	}
	if a := registry.witnessed(r, body); a.status != 0 {
		return a
	}
	return i.take(r.Context(), registry, registry.Decoder.Decode(r.Header, body))
}

// take has what was told accepted.
func (i *Intake) take(ctx context.Context, registry Registry, d replicator.Decoded) reply {
	if d.Ping {
		return reply{status: http.StatusOK, body: d.Answer}
	}
	now := i.now().UTC()
	if blobs := registry.checkBlobs(d.Blobs); len(blobs) > 0 && i.ahead != nil {
		i.ahead(blobs)
	}
	events, ignored, refused := registry.check(d, now)
	var findings []replicator.Finding
	var sweepDue []string
	if refused.n > 0 {
		findings = []replicator.Finding{registry.unusable(refused.message(), now)}
		sweepDue = []string{registry.Name}
	}
	total := len(events) + ignored + refused.n
	if len(events) == 0 && len(findings) == 0 {
		return reply{status: http.StatusAccepted, ignored: total}
	}
	accepted, err := i.commit(ctx, events, findings, sweepDue)
	if err != nil {
		return reply{status: http.StatusServiceUnavailable, problem: "cannot be stored now, send it again", detail: err}
	}
	accepted = min(max(accepted, 0), len(events))
	return reply{status: http.StatusAccepted, accepted: accepted, ignored: total - accepted}
}

const overBound = "the body is over 8 MiB"

// tooLarge: what is not read may have told anything.
func (i *Intake) tooLarge(ctx context.Context, registry Registry, why string) reply {
	f := registry.unusable("a webhook was not read: "+why, i.now().UTC())
	if _, err := i.commit(ctx, nil, []replicator.Finding{f}, []string{registry.Name}); err != nil {
		return reply{status: http.StatusServiceUnavailable, problem: "cannot be stored now, send it again", detail: err}
	}
	return reply{status: http.StatusRequestEntityTooLarge, problem: why}
}

func (i *Intake) commit(ctx context.Context, events []replicator.Event, findings []replicator.Finding, sweepDue []string) (int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), acceptTime)
	defer cancel()
	return i.accept(ctx, events, findings, sweepDue)
}
