package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A registry is one in memory whose content can be deleted.
type registry struct {
	*ocitest.Registry
	// kept is what deletions are refused with, by reference; "" is for all.
	kept map[string]error
	// fixed and clock are what it says of its tags and time.
	fixed bool
	clock func() time.Time
	// untag is what the removal of a tag alone comes to.
	untag error
}

type repository struct {
	oci.Repository
	r *registry
}

func (r *registry) Repository(name string) oci.Repository {
	return &repository{r.Registry.Repository(name), r}
}

func (r *registry) Time(ctx context.Context) (time.Time, error) {
	if err := r.Ping(ctx); err != nil {
		return time.Time{}, err
	}
	return r.clock(), nil
}

func (p *repository) EraseManifest(ctx context.Context, reference string) error {
	for _, key := range []string{"", reference, strings.SplitN(reference, "-", 2)[0]} {
		if err := p.r.kept[key]; err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !oci.IsDigest(reference) {
		p.r.SetTag(p.Name(), reference, "")
		return nil
	}
	if _, there := p.r.Manifest(p.Name(), reference); !there {
		return oci.ErrNotFound
	}
	p.r.Remove(p.Name(), digest.Digest(reference))
	return nil
}

func (p *repository) EraseBlob(_ context.Context, d digest.Digest) error {
	p.r.Remove(p.Name(), d)
	return nil
}

func (p *repository) FixesTags(context.Context) (bool, error) { return p.r.fixed, nil }
func (p *repository) DeleteTag(context.Context, string) error { return p.r.untag }
func (p *repository) DropsUntagged() bool                     { return false }

// furnished is a destination with two repositories.
func furnished(options ocitest.Options) (*registry, Subject) {
	r := &registry{Registry: ocitest.New("oci://us", options), clock: time.Now}
	r.Push("team/app", "v1", ocitest.MultiArch("app", 2, 2))
	r.Push("team/web", "v1", ocitest.Image("web", 1))
	return r, Subject{Name: "us", Kind: "oci", Address: "us.example.com", Client: r, Referrers: true, To: &Use{
		Patterns: true, Match: func(name string) bool { return strings.HasPrefix(name, "team/") }, Example: "team/twinport-check",
	}}
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Check == name {
			return c
		}
	}
	t.Fatalf("no check %s in %+v", name, r)
	return Check{}
}

// empty tells what of a probe is left.
func (r *registry) left() (left []string) {
	for _, name := range []string{"team/app", "team/web", "team/twinport-check"} {
		for _, tag := range r.TagNames(name) {
			if oci.IsProbe(tag) {
				left = append(left, name+":"+tag)
			}
		}
	}
	if n := r.OpenSessions(); n != 0 {
		left = append(left, fmt.Sprintf("%d sessions", n))
	}
	return left
}

func TestPush(t *testing.T) {
	denied := &oci.RegistryError{Registry: "us", Operation: "DELETE", Status: 403, Code: "DENIED", Kind: oci.ErrDenied, Hint: "may delete"}
	for name, c := range map[string]struct {
		options ocitest.Options
		change  func(*registry, *Subject)
		want    map[string]State
		detail  string // of push
	}{
		"whole":             {want: map[string]State{cPush: OK, cMount: OK, cDelete: OK, cReferrers: OK, cPull: OK}, detail: "pushed team/"},
		"with an API":       {options: ocitest.Options{ReferrersAPI: true}, want: map[string]State{cPush: OK, cReferrers: OK}},
		"without mounts":    {options: ocitest.Options{NoMount: true}, want: map[string]State{cMount: OK}},
		"mounts to be had":  {options: ocitest.Options{NoMount: true}, change: func(_ *registry, s *Subject) { s.MountHint = "turn them on" }, want: map[string]State{cMount: Warning}},
		"tags that stay":    {change: func(r *registry, _ *Subject) { r.fixed = true }, want: map[string]State{cPush: OK, cDelete: OK}, detail: "no tag"},
		"no deletions":      {change: func(r *registry, _ *Subject) { r.kept = map[string]error{"": oci.ErrUnsupported} }, want: map[string]State{cPush: OK, cMount: Skipped, cDelete: Skipped, cPull: OK}, detail: "begun and cancelled"},
		"deletions denied":  {change: func(r *registry, _ *Subject) { r.kept = map[string]error{"": denied} }, want: map[string]State{cPush: OK, cDelete: Skipped}, detail: "DELETE: 403 DENIED"},
		"deletions needed":  {change: func(r *registry, s *Subject) { r.kept, s.To.Delete = map[string]error{"": denied}, true }, want: map[string]State{cPush: OK, cDelete: Failed}},
		"untagging needed":  {change: func(r *registry, s *Subject) { r.untag, s.To.Delete = denied, true }, want: map[string]State{cPush: OK, cDelete: Failed}},
		"untagging allowed": {change: func(r *registry, s *Subject) { r.untag, s.To.Delete = oci.ErrNotFound, true }, want: map[string]State{cPush: OK, cDelete: OK}},
		"uploads denied": {change: func(r *registry, _ *Subject) {
			r.OnCall(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.StartUpload {
					return denied
				}
				return nil
			})
		}, want: map[string]State{cPush: Failed, cMount: Skipped, cDelete: OK}},
		"blobs refused": {change: func(r *registry, _ *Subject) {
			r.OnCall(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.PutUpload {
					return oci.ErrRefused
				}
				return nil
			})
		}, want: map[string]State{cPush: Failed, cDelete: OK}},
		"manifests refused": {change: func(r *registry, _ *Subject) {
			r.OnCall(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.PutManifest {
					return oci.ErrRefused
				}
				return nil
			})
		}, want: map[string]State{cPush: Failed, cDelete: OK}},
		"nothing there yet": {change: func(r *registry, s *Subject) {
			r.RemoveRepository("team/app")
			r.RemoveRepository("team/web")
		}, want: map[string]State{cList: Skipped, cPull: Skipped, cPush: Skipped, cDelete: Skipped}, detail: "would leave one"},
		"nothing there, no trace": {change: func(r *registry, s *Subject) {
			r.RemoveRepository("team/app")
			r.RemoveRepository("team/web")
			s.Traceless = true
		}, want: map[string]State{cPush: OK}, detail: "may upload to team/twinport-check"},
		"no route": {change: func(_ *registry, s *Subject) { s.To = nil }, want: map[string]State{cList: Skipped, cPull: Skipped, cPush: Skipped, cReferrers: Skipped}, detail: "not needed: no route uses"},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := furnished(c.options)
			if c.change != nil {
				c.change(r, &s)
			}
			report := Run(t.Context(), []Subject{s})[0]
			for check, want := range c.want {
				if got := find(t, report, check); got.State != want {
					t.Errorf("%+v, want %s", got, want)
				}
			}
			if got := find(t, report, cPush); !strings.Contains(got.Detail, c.detail) {
				t.Errorf("%+v does not tell %q", got, c.detail)
			}
			if left := r.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestLeftBehind: what stays in spite of all is told with its name, and fails.
func TestLeftBehind(t *testing.T) {
	r, s := furnished(ocitest.Options{})
	asked := 0
	stays := errors.New("the storage is full")
	r.OnCall(func(_ context.Context, c ocitest.Call) error {
		if c.Method == ocitest.PutManifest {
			asked++
			r.kept = map[string]error{"": stays}
		}
		return nil
	})
	report := Run(t.Context(), []Subject{s})[0]
	c := find(t, report, cDelete)
	if c.State != Failed || !strings.Contains(c.Detail, "left behind: team/") || !strings.Contains(c.Detail, "storage is full") || !strings.Contains(c.Hint, "by hand") {
		t.Errorf("%+v", c)
	}
	if !report.Failed() || asked != 1 || len(r.left()) != 1 {
		t.Errorf("%d pushes, left %v", asked, r.left())
	}
}

// TestInterrupted: a look that is interrupted takes away what it has pushed.
func TestInterrupted(t *testing.T) {
	for _, at := range []ocitest.Method{ocitest.StartUpload, ocitest.PutUpload, ocitest.PutManifest, ocitest.GetBlob, ocitest.Referrers} {
		t.Run(string(at), func(t *testing.T) {
			r, s := furnished(ocitest.Options{})
			s.From = nil
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			pushed := false
			r.OnDone(func(c ocitest.Call) {
				pushed = pushed || c.Method == ocitest.StartUpload
				if c.Method == at && pushed {
					cancel()
				}
			})
			Run(ctx, []Subject{s})
			if left := r.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestSilence: who does not answer is given up within seconds, while others
// are looked at beside it.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent, s := furnished(ocitest.Options{})
		silent.OnCall(func(ctx context.Context, _ ocitest.Call) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", ctx.Err(), context.Cause(ctx))
		})
		_, well := furnished(ocitest.Options{})
		began := time.Now()
		reports := Run(t.Context(), []Subject{s, well})
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		if c := find(t, reports[0], cAPI); c.State != Failed || !strings.Contains(c.Detail, "no answer within 10s") {
			t.Errorf("%+v", c)
		}
		if c := find(t, reports[0], cPush); c.State != Skipped || c.Detail != "not tried: the registry does not answer" {
			t.Errorf("%+v", c)
		}
		if c := find(t, reports[1], cPush); c.State != OK {
			t.Errorf("%+v", c)
		}
	})
}

func TestClock(t *testing.T) {
	for _, c := range []struct {
		off   time.Duration
		signs bool
		want  State
		way   string
	}{
		{0, false, OK, "within 1s"},
		{4 * time.Second, false, OK, "within"},
		{-30 * time.Second, false, Warning, "s ahead of the registry"},
		{30 * time.Second, true, Warning, "s behind the registry"},
		{6 * time.Minute, false, Warning, "s behind the registry"},
		{6 * time.Minute, true, Failed, "s behind the registry"},
		{-6 * time.Minute, true, Failed, "s ahead of the registry"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, s := furnished(ocitest.Options{})
			s.Signs = c.signs
			r.clock = func() time.Time { return time.Now().Add(c.off).Truncate(time.Second) }
			if got := find(t, Run(t.Context(), []Subject{s})[0], cClock); got.State != c.want || !strings.Contains(got.Detail, c.way) {
				t.Errorf("%s: %+v", c.off, got)
			}
		})
	}
	r, s := furnished(ocitest.Options{})
	r.clock = func() time.Time { return time.Time{} }
	if got := find(t, Run(t.Context(), []Subject{s})[0], cClock); got.State != Skipped {
		t.Errorf("no time: %+v", got)
	}
}

func TestWebhook(t *testing.T) {
	secret := func(value string, err error) func() (string, error) {
		return func() (string, error) { return value, err }
	}
	for name, c := range map[string]struct {
		hook Hook
		want State
	}{
		"not needed":  {Hook{NotNeeded: "so"}, Skipped},
		"none":        {Hook{}, Warning},
		"verified":    {Hook{Verified: true}, OK},
		"set":         {Hook{Secrets: []func() (string, error){secret("s", nil)}}, OK},
		"empty":       {Hook{Secrets: []func() (string, error){secret("s", nil), secret("", nil)}}, Failed},
		"cannot read": {Hook{Secrets: []func() (string, error){secret("", errors.New("no such file"))}}, Failed},
	} {
		if got := webhook(c.hook); got.state != c.want {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
}

// TestTold: errors are told without what their reader knows, with what to do.
func TestTold(t *testing.T) {
	refused := &oci.RegistryError{Registry: "us", Operation: "PUT manifest a:b", Status: 403, Code: "DENIED", Kind: oci.ErrDenied, Hint: "allow it"}
	for name, c := range map[string]struct {
		err          error
		detail, hint string
	}{
		"refused":   {refused, "PUT manifest a:b: 403 DENIED", "allow it"},
		"wrapped":   {fmt.Errorf("GET x: us: log in: %w", refused), "PUT manifest a:b: 403 DENIED", "allow it"},
		"throttled": {&oci.ThrottledError{Wait: 90 * time.Second, Err: refused}, "PUT manifest a:b: 403 DENIED", "the registry asks to wait 1m30s; try again then"},
		"silent":    {&oci.RegistryError{Registry: "us", Operation: "GET /v2/", Kind: context.DeadlineExceeded, Cause: late(10 * time.Second)}, "GET /v2/: no answer within 10s", "look whether the registry is up, and what stands between (proxy, firewall)"},
		"other":     {errors.New("something"), "something", ""},
	} {
		if detail, hint := told(c.err); detail != c.detail || hint != c.hint {
			t.Errorf("%s: %q, %q", name, detail, hint)
		}
	}
}

// TestDistrusted: each way in which a handshake fails says what to do.
func TestDistrusted(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		hint string
	}{
		"no TLS": {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "plainHTTP"},
		"other":  {errors.New("EOF"), "look what stands before"},
	} {
		if got := distrusted(c.err, "us.example.com"); got.state != Failed || !strings.Contains(got.hint, c.hint) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestLongCatalog: a list that is too long for a look is no silence.
func TestLongCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := furnished(ocitest.Options{})
		s.From, s.To = &Use{Patterns: true, Match: func(string) bool { return false }}, nil
		s.Client = &endless{r}
		report := Run(t.Context(), []Subject{s})[0]
		if c := find(t, report, cList); c.State != Warning || !strings.Contains(c.Detail, "in 20s only") {
			t.Errorf("%+v", c)
		}
		if c := find(t, report, cPull); c.State != Skipped || !strings.Contains(c.Detail, "no image") {
			t.Errorf("%+v", c)
		}
	})
}

// endless lists a repository a second.
type endless struct{ *registry }

func (e *endless) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for n := 0; ; n++ {
			timer := time.NewTimer(time.Second)
			select {
			case <-ctx.Done():
				timer.Stop()
				yield("", fmt.Errorf("list: %w", ctx.Err()))
				return
			case <-timer.C:
			}
			if !yield(fmt.Sprintf("other/r%d", n), nil) {
				return
			}
		}
	}
}

// replicas is a registry whose reads may lag behind.
type replicas struct{ *registry }

func (replicas) Settles() time.Duration { return time.Minute }

// TestReplicas: what a replica does not know yet is no failure.
func TestReplicas(t *testing.T) {
	r, s := furnished(ocitest.Options{})
	s.Client = replicas{r}
	pushed := ""
	r.OnCall(func(_ context.Context, c ocitest.Call) error {
		if c.Method == ocitest.PutManifest {
			pushed = c.Reference
		}
		if c.Method == ocitest.HeadManifest && c.Reference == pushed {
			return oci.ErrNotFound
		}
		return nil
	})
	report := Run(t.Context(), []Subject{s})[0]
	for _, name := range []string{cPull, cPush, cDelete} {
		if c := find(t, report, name); c.State != OK {
			t.Errorf("%+v", c)
		}
	}
}
