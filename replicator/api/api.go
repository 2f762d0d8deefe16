// Package api shows what the journal knows as JSON and as Prometheus metrics,
// and is the operator's door: what commands do while a daemon holds the
// journal goes through it. Every shape of the JSON is declared here; commands
// print the same.
package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
)

// maxRequest bounds the body of a request to the API, in bytes.
const maxRequest = 1 << 20

// An Operator does what the API is asked for; the daemon is one, and so is a
// command that holds the journal itself. Errors that are *UsageError are the
// caller's fault; journal.ErrUnknown is 404.
type Operator interface {
	Status(ctx context.Context) (Status, error)
	Behind(ctx context.Context, route, destination, after string, limit int) (Behind, error)
	Jobs(ctx context.Context, filter journal.JobFilter) (Jobs, error)
	Job(ctx context.Context, id string) (Job, error)
	Retry(ctx context.Context, filter journal.JobFilter, actor string) (Changed, error)
	Cancel(ctx context.Context, filter journal.JobFilter, actor string) (Changed, error)
	Findings(ctx context.Context, filter journal.FindingFilter) (Findings, error)
	Acknowledge(ctx context.Context, ids []string, actor string) (Changed, error)
	// History takes REGISTRY/REPOSITORY:TAG; at, where not nil, asks for the
	// state at that time alone.
	History(ctx context.Context, reference string, at *time.Time) (History, error)
	SetPaused(ctx context.Context, route string, paused bool, actor string) (Pauses, error)
	// Sync and Verify tell progress now and then, from one goroutine.
	Sync(ctx context.Context, request SyncRequest, progress func(Progress)) (Sync, error)
	Verify(ctx context.Context, request VerifyRequest, progress func(Progress)) (Verify, error)
	// Plan is the caller's to close.
	Plan(ctx context.Context, routes []string) (*Plan, error)
	Resolve(ctx context.Context, request ResolveRequest, actor string) (Resolved, error)
}

// A UsageError is a request that makes no sense: 400, exit code 2.
type UsageError struct{ Message, Hint string }

func (e *UsageError) Error() string { return e.Message }

// Handler serves /api/v1/… for an operator. token gives the bearer token that
// every request must carry, empty where none is asked for; it is asked each
// time, so that a rotated one counts at once.
func Handler(o Operator, token func() (string, error)) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, answer(f))
	}
	post := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("POST "+path, answer(f))
	}
	get("/api/v1/status", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		if behind, _ := strconv.ParseBool(q.Get("behind")); behind {
			limit, err := limitOf(q.Get("limit"))
			if err != nil {
				return nil, err
			}
			return o.Behind(r.Context(), q.Get("route"), q.Get("destination"), q.Get("after"), limit)
		}
		return o.Status(r.Context())
	})
	get("/api/v1/jobs", func(r *http.Request) (any, error) {
		filter, err := JobFilter(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return o.Jobs(r.Context(), filter)
	})
	get("/api/v1/jobs/{id}", func(r *http.Request) (any, error) { return o.Job(r.Context(), r.PathValue("id")) })
	post("/api/v1/jobs/retry", func(r *http.Request) (any, error) {
		filter, err := chosenJobs(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return o.Retry(r.Context(), filter, actor(r))
	})
	post("/api/v1/jobs/cancel", func(r *http.Request) (any, error) {
		filter, err := chosenJobs(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return o.Cancel(r.Context(), filter, actor(r))
	})
	get("/api/v1/findings", func(r *http.Request) (any, error) {
		filter, err := FindingFilter(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return o.Findings(r.Context(), filter)
	})
	post("/api/v1/findings/ack", func(r *http.Request) (any, error) {
		var ids struct {
			IDs []string `json:"ids"`
		}
		if err := decode(r, &ids); err != nil {
			return nil, err
		}
		return o.Acknowledge(r.Context(), ids.IDs, actor(r))
	})
	get("/api/v1/history", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		var at *time.Time
		if s := q.Get("at"); s != "" {
			t, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return nil, &UsageError{Message: fmt.Sprintf("at: %.40q is no time", s), Hint: "write it as RFC 3339, 2026-01-31T14:05:00Z"}
			}
			at = &t
		}
		return o.History(r.Context(), q.Get("reference"), at)
	})
	for _, paused := range []bool{true, false} {
		verb := map[bool]string{true: "pause", false: "resume"}[paused]
		post("/api/v1/routes/{route}/"+verb, func(r *http.Request) (any, error) {
			return o.SetPaused(r.Context(), r.PathValue("route"), paused, actor(r))
		})
	}
	post("/api/v1/resolve", func(r *http.Request) (any, error) {
		var request ResolveRequest
		if err := decode(r, &request); err != nil {
			return nil, err
		}
		return o.Resolve(r.Context(), request, actor(r))
	})
	post("/api/v1/plan", func(r *http.Request) (any, error) {
		var request struct {
			Routes []string `json:"routes"`
		}
		if err := decodeSome(r, &request); err != nil {
			return nil, err
		}
		return o.Plan(r.Context(), request.Routes)
	})
	mux.HandleFunc("POST /api/v1/sync", stream(func(r *http.Request, progress func(Progress)) (any, error) {
		var request SyncRequest
		if err := decodeSome(r, &request); err != nil {
			return nil, err
		}
		return o.Sync(r.Context(), request, progress)
	}))
	mux.HandleFunc("POST /api/v1/verify", stream(func(r *http.Request, progress func(Progress)) (any, error) {
		var request VerifyRequest
		if err := decodeSome(r, &request); err != nil {
			return nil, err
		}
		return o.Verify(r.Context(), request, progress)
	}))
	const rest = "/api/v1/"
	mux.HandleFunc(rest, func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := *r
			other.Method = method
			if _, pattern := mux.Handler(&other); pattern != rest {
				w.Header().Set("Allow", method)
				write(w, http.StatusMethodNotAllowed, Problem{Error: fmt.Sprintf("%.200s is asked for with %s", r.URL.Path, method)})
				return
			}
		}
		write(w, http.StatusNotFound, Problem{Error: fmt.Sprintf("nothing is at %.200s", r.URL.Path)})
	})
	return Authorized(mux, token)
}

// Authorized lets only requests with the bearer token through; where the token
// is empty, all. What a browser was made to send by another site is refused
// either way, since on loopback there may be no token: by its origin and, where
// there is none, by a name that somebody else made to point at this address.
func Authorized(next http.Handler, token func() (string, error)) http.Handler {
	guard := http.NewCrossOriginProtection()
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token()
		if want == "" && err == nil {
			if !isOwnName(r.Host) {
				write(w, http.StatusForbidden, Problem{
					Error: fmt.Sprintf("asked for as %.100q", r.Host),
					Hint:  "without a token this answers to localhost and to addresses alone: set the config's api.token",
				})
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, password, ok := r.BasicAuth(); ok {
			got = password
		}
		a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
		if err != nil || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="twinport"`)
			write(w, http.StatusUnauthorized, Problem{Error: "missing or wrong token", Hint: "send `Authorization: Bearer TOKEN` with the config's api.token"})
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// isOwnName tells whether a Host is one that no foreign name server decides on.
func isOwnName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// actor is who asks, for the audit: what the caller says of itself, bounded,
// and where it calls from.
func actor(r *http.Request) string {
	name := r.Header.Get("X-Twinport-Actor")
	name = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, name)
	if len(name) > 80 {
		name = name[:80]
	}
	if name == "" {
		return "api " + r.RemoteAddr
	}
	return name
}

func answer(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		if err != nil {
			code, problem := problemOf(err)
			write(w, code, problem)
			return
		}
		write(w, http.StatusOK, out)
	}
}

// stream answers with one JSON value; where the caller takes NDJSON
// (`Accept: application/x-ndjson`), lines of {"progress":…} come before
// {"result":…} or {"error":…}.
func stream(f func(r *http.Request, progress func(Progress)) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/x-ndjson" {
			answer(func(r *http.Request) (any, error) { return f(r, func(Progress) {}) })(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		lines := json.NewEncoder(w)
		flush := func() { _ = http.NewResponseController(w).Flush() }
		out, err := f(r, func(p Progress) {
			_ = lines.Encode(Line{Progress: &p}) // a caller that went away ends r's context
			flush()
		})
		var line Line
		if err != nil {
			code, problem := problemOf(err)
			line.Error, line.Code = &problem, code
		} else if line.Result, err = json.Marshal(out); err != nil {
			line.Error = &Problem{Error: err.Error()}
		}
		_ = lines.Encode(line)
		flush()
	}
}

// A Line is one line of a streamed answer.
type Line struct {
	Progress *Progress       `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *Problem        `json:"error,omitempty"`
	// Code is the HTTP status that the error would have had.
	Code int `json:"code,omitempty"`
}

func problemOf(err error) (int, Problem) {
	var usage *UsageError
	switch {
	case errors.As(err, &usage):
		return http.StatusBadRequest, Problem{Error: usage.Message, Hint: usage.Hint}
	case errors.Is(err, journal.ErrUnknown):
		return http.StatusNotFound, Problem{Error: err.Error()}
	case errors.Is(err, journal.ErrBusy), errors.Is(err, journal.ErrClosed), errors.Is(err, journal.ErrUnavailable):
		return http.StatusServiceUnavailable, Problem{Error: err.Error(), Hint: "ask again"}
	}
	return http.StatusInternalServerError, Problem{Error: err.Error()}
}

func write(w http.ResponseWriter, code int, v any) {
	if p, ok := v.(*Plan); ok {
		writePlan(w, p)
		return
	}
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a caller that went away
}

// writePlan answers with a plan, which may be long.
func writePlan(w http.ResponseWriter, p *Plan) {
	defer func() { _ = p.Close() }() // nobody needs its file any more
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if err := p.WriteJSON(w); err != nil {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
}

// decode reads a request's body: one JSON object without fields we do not know.
func decode(r *http.Request, into any) error {
	body := http.MaxBytesReader(nil, r.Body, maxRequest)
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return &UsageError{Message: "the request's body: " + err.Error(), Hint: "send the JSON object that the API's page describes"}
	}
	return nil
}

// decodeSome is decode for requests that ask for everything where their body
// is empty.
func decodeSome(r *http.Request, into any) error {
	body := bufio.NewReader(r.Body)
	if _, err := body.Peek(1); errors.Is(err, io.EOF) {
		return nil
	}
	r.Body = io.NopCloser(body)
	return decode(r, into)
}

// chosenJobs is JobFilter for what changes jobs: without any filter it takes
// `all=true`, so that a forgotten one does not change every job there is.
func chosenJobs(q map[string][]string) (journal.JobFilter, error) {
	f, err := JobFilter(q)
	if err != nil {
		return f, err
	}
	chosen := len(f.IDs)+len(f.States) > 0 || f.Lane != nil || f.Route+f.Destination+f.Repository+f.Tag+f.ErrorKind != ""
	if all := q["all"]; !chosen && (len(all) == 0 || all[0] != "true") {
		return f, &UsageError{Message: "no filter selects the jobs to change", Hint: "name them by id, filter them, or say all=true"}
	}
	return f, nil
}

// JobFilter reads a job filter from a query: id, state (each may repeat),
// route, destination, repository, tag, lane, error, after, limit.
func JobFilter(q map[string][]string) (journal.JobFilter, error) {
	f := journal.JobFilter{IDs: q["id"]}
	for _, s := range q["state"] {
		state := replicator.JobState(s)
		if !slices.Contains(replicator.JobStates, state) {
			return f, &UsageError{Message: fmt.Sprintf("no job state %.20q", s), Hint: "one of " + join(replicator.JobStates)}
		}
		f.States = append(f.States, state)
	}
	one := func(key string) string {
		if v := q[key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	f.Route, f.Destination, f.Repository = one("route"), one("destination"), one("repository")
	f.Tag, f.ErrorKind, f.After = one("tag"), one("error"), one("after")
	if s := one("lane"); s != "" {
		var lane replicator.Lane
		if err := lane.UnmarshalText([]byte(s)); err != nil {
			return f, &UsageError{Message: err.Error(), Hint: "one of webhook, manual, sweep, backfill"}
		}
		f.Lane = &lane
	}
	var err error
	f.Limit, err = limitOf(one("limit"))
	return f, err
}

// join lists words for a hint.
func join[S ~string](words []S) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return strings.Join(list, ", ")
}

// FindingFilter reads a finding filter from a query: id (may repeat), kind,
// route, registry, acknowledged, after, limit.
func FindingFilter(q map[string][]string) (journal.FindingFilter, error) {
	one := func(key string) string {
		if v := q[key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	f := journal.FindingFilter{
		IDs: q["id"], Kind: replicator.FindingKind(one("kind")), Route: one("route"), Registry: one("registry"), After: one("after"),
	}
	if f.Kind != "" && !slices.Contains(replicator.FindingKinds, f.Kind) {
		return f, &UsageError{Message: fmt.Sprintf("no kind of finding %.20q", f.Kind), Hint: "one of " + join(replicator.FindingKinds)}
	}
	if s := one("acknowledged"); s != "" {
		acknowledged, err := strconv.ParseBool(s)
		if err != nil {
			return f, &UsageError{Message: fmt.Sprintf("acknowledged: %.20q is neither true nor false", s)}
		}
		f.Acknowledged = &acknowledged
	}
	var err error
	f.Limit, err = limitOf(one("limit"))
	return f, err
}

func limitOf(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0, &UsageError{Message: fmt.Sprintf("limit: %.20q is no number from 1 to 1000", s)}
	}
	return n, nil
}
