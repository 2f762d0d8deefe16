package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/journal"
)

var noon = time.Date(2026, 1, 31, 14, 5, 0, 0, time.FixedZone("CET", 3600))

// operator notes what it is asked for, and answers with err where that is set.
type operator struct {
	mu    sync.Mutex
	asked []string
	err   error
	// during is called while a sync or verify runs.
	during func(ctx context.Context, progress func(Progress))
}

func (o *operator) note(format string, args ...any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, fmt.Sprintf(format, args...))
	return o.err
}

func (o *operator) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asked) == 0 {
		return ""
	}
	return o.asked[len(o.asked)-1]
}

func show(f journal.JobFilter) string {
	lane := ""
	if f.Lane != nil {
		lane = f.Lane.String()
	}
	return fmt.Sprintf("ids=%v states=%v route=%s destination=%s repository=%s tag=%s lane=%s error=%s after=%s limit=%d",
		f.IDs, f.States, f.Route, f.Destination, f.Repository, f.Tag, lane, f.ErrorKind, f.After, f.Limit)
}

func (o *operator) Status(context.Context) (Status, error) {
	return Status{Routes: []RouteStatus{}}, o.note("status")
}

func (o *operator) Behind(_ context.Context, route, destination, after string, limit int) (Behind, error) {
	return Behind{Behind: []BehindTag{}}, o.note("behind route=%s destination=%s after=%s limit=%d", route, destination, after, limit)
}

func (o *operator) Jobs(_ context.Context, f journal.JobFilter) (Jobs, error) {
	return Jobs{Jobs: []Job{}}, o.note("jobs %s", show(f))
}

func (o *operator) Job(_ context.Context, id string) (Job, error) {
	return Job{ID: id}, o.note("job %s", id)
}

func (o *operator) Retry(_ context.Context, f journal.JobFilter, actor string) (Changed, error) {
	return Changed{1}, o.note("retry %s by %s", show(f), actor)
}

func (o *operator) Cancel(_ context.Context, f journal.JobFilter, actor string) (Changed, error) {
	return Changed{2}, o.note("cancel %s by %s", show(f), actor)
}

func (o *operator) Findings(_ context.Context, f journal.FindingFilter) (Findings, error) {
	acknowledged := "any"
	if f.Acknowledged != nil {
		acknowledged = fmt.Sprint(*f.Acknowledged)
	}
	return Findings{Findings: []Finding{}}, o.note("findings ids=%v kind=%s route=%s registry=%s acknowledged=%s after=%s limit=%d",
		f.IDs, f.Kind, f.Route, f.Registry, acknowledged, f.After, f.Limit)
}

func (o *operator) Acknowledge(_ context.Context, ids []string, actor string) (Changed, error) {
	return Changed{len(ids)}, o.note("acknowledge %v by %s", ids, actor)
}

func (o *operator) History(_ context.Context, reference string, at *time.Time) (History, error) {
	when := "always"
	if at != nil {
		when = at.UTC().Format(time.RFC3339)
	}
	return History{History: []TagState{}}, o.note("history %s at %s", reference, when)
}

func (o *operator) SetPaused(_ context.Context, route string, paused bool, actor string) (Pauses, error) {
	return Pauses{route, paused}, o.note("paused %s %t by %s", route, paused, actor)
}

func (o *operator) Sync(ctx context.Context, r SyncRequest, progress func(Progress)) (Sync, error) {
	if o.during != nil {
		o.during(ctx, progress)
	}
	return Sync{Copied: 3, Findings: []Finding{}}, o.note("sync %+v", r)
}

func (o *operator) Verify(ctx context.Context, r VerifyRequest, progress func(Progress)) (Verify, error) {
	if o.during != nil {
		o.during(ctx, progress)
	}
	return Verify{Checked: 5, Missing: []Verified{}, Corrupt: []Verified{}}, o.note("verify %+v", r)
}

func (o *operator) Plan(_ context.Context, routes []string) (*Plan, error) {
	return NewPlan(""), o.note("plan %v", routes)
}

func (o *operator) Resolve(_ context.Context, r ResolveRequest, actor string) (Resolved, error) {
	return Resolved{Reference: r.Reference, Prefer: r.Prefer}, o.note("resolve %+v by %s", r, actor)
}

func noToken() (string, error) { return "", nil }

// ask sends one request to a handler.
func ask(t *testing.T, h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8481"+target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:5555"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
