package integration

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// reports is what check prints.
type reports struct {
	Registries []struct {
		Registry, Kind, Address string
		Checks                  []struct{ Check, State, Detail, Hint string }
	}
}

// of gives one check of one registry, as `state detail hint`.
func (r reports) of(registry, check string) (state, detail, hint string) {
	for _, one := range r.Registries {
		for _, c := range one.Checks {
			if one.Registry == registry && c.Check == check {
				return c.State, c.Detail, c.Hint
			}
		}
	}
	return "", "", ""
}

// look runs check and expects an exit code.
func (w *world) look(code int, args ...string) reports {
	w.t.Helper()
	r := w.Command(append(append([]string{"check"}, args...), "--output", "json")...)
	if r.Code != code {
		w.t.Errorf("check: exit %d, want %d\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	var told reports
	decode(w.t, r, &told)
	return told
}

// expect holds one check of a registry.
func (w *world) expect(told reports, registry, check, state, detail, hint string) {
	w.t.Helper()
	gotState, gotDetail, gotHint := told.of(registry, check)
	if gotState != state || !strings.Contains(gotDetail, detail) || !strings.Contains(gotHint, hint) {
		w.t.Errorf("%s of %s: %s, %q, %q; want %s, %q, %q", check, registry, gotState, gotDetail, gotHint, state, detail, hint)
	}
}

// holds is all that a registry tells of itself, and its open uploads.
func (w *world) holds(name string) string {
	w.t.Helper()
	client := w.reg[name].Client()
	repositories, err := client.Repositories(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(repositories)
	var b strings.Builder
	for _, repository := range repositories {
		tags, err := client.Tags(w.t.Context(), repository)
		if err != nil {
			w.t.Fatal(err)
		}
		slices.Sort(tags)
		for _, tag := range tags {
			d, err := client.Digest(w.t.Context(), repository, tag)
			if err != nil {
				w.t.Fatal(err)
			}
			fmt.Fprintln(&b, repository, tag, d)
		}
		fmt.Fprintln(&b, repository, len(tags))
	}
	fmt.Fprintln(&b, w.reg[name].Sessions(), "uploads")
	return b.String()
}

// furnished is a world whose registries hold images, both with deletes or not.
func furnished(t *testing.T, s setup) *world {
	t.Helper()
	s.silent, s.direct, s.exact = true, true, true
	w := build(t, s)
	for _, repository := range []string{"team/app", "team/web"} {
		image := w.content.MultiArch(harness.ImageSpec{}, "amd64", "arm64")
		for _, name := range []string{"eu", "us"} {
			if err := w.reg[name].Client().Push(t.Context(), repository, image, "v1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func (w *world) unchanged(before map[string]string) {
	w.t.Helper()
	for name, held := range before {
		if now := w.holds(name); now != held {
			w.t.Errorf("%s held\n%sand now\n%s", name, held, now)
		}
	}
}

func (w *world) before() map[string]string {
	return map[string]string{"eu": w.holds("eu"), "us": w.holds("us")}
}

// A look at registries that are well finds so, and leaves them as they were.
func TestCheckLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]bool{"deletes on": false, "deletes off": true} {
		t.Run(name, func(t *testing.T) {
			w := furnished(t, setup{
				source: harness.RegistryOptions{Username: "robot", Password: "password-of-robot", NoDelete: off},
				others: harness.RegistryOptions{NoDelete: off},
			})
			before := w.before()
			told := w.look(0)
			w.expect(told, "eu", "identity", "ok", "robot", "")
			w.expect(told, "eu", "list", "ok", "lists its repositories", "")
			w.expect(told, "eu", "pull", "ok", "and a blob of it were read", "")
			w.expect(told, "eu", "push", "skipped", "not needed", "")
			w.expect(told, "eu", "webhook", "ok", "a secret is set", "")
			w.expect(told, "us", "referrers", "ok", "fallback tags", "")
			if off {
				w.expect(told, "us", "push", "ok", "begun and cancelled; no manifest was pushed", "")
				w.expect(told, "us", "delete", "skipped", "405", "")
				w.expect(told, "us", "mount", "skipped", "not tried", "")
			} else {
				w.expect(told, "us", "push", "ok", "twinport-check-", "")
				w.expect(told, "us", "delete", "ok", "deleted again", "")
				w.expect(told, "us", "mount", "ok", "granted from team/", "")
			}
			w.unchanged(before)
		})
	}
}

// A destination that is still empty stays so.
func TestCheckOfAnEmptyDestination(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, direct: true, exact: true})
	w.push("team/app", w.content.Image(harness.ImageSpec{}), "v1")
	before := w.before()
	told := w.look(0)
	w.expect(told, "us", "push", "ok", "may upload to team/app: begun and cancelled", "")
	w.expect(told, "us", "list", "skipped", "none of the routes' repositories", "")
	w.unchanged(before)
}

// A wrong password is told with the account's name, and not itself.
func TestCheckOfAWrongPassword(t *testing.T) {
	t.Parallel()
	w := furnished(t, setup{others: harness.RegistryOptions{Username: "robot", Password: "password-of-robot"}})
	for i := range w.Config.Registries {
		if w.Config.Registries[i].Name == "us" {
			w.Config.Registries[i].Password = "another-password"
		}
	}
	w.WriteConfig()
	told := w.look(1)
	w.expect(told, "us", "identity", "failed", "robot: GET /v2/: 401", "check auth")
	w.expect(told, "us", "push", "skipped", "the login is refused", "")
	w.expect(told, "eu", "pull", "ok", "", "")
	if r := w.Command("check"); r.Code != 1 || strings.Contains(r.Stdout+r.Stderr, "another-password") || !strings.Contains(r.Stdout, "us: FAILED: identity") {
		t.Errorf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// Registries that cannot be talked to are told with the reason, side by side
// with one that can; nothing waits for them for long.
func TestCheckOfUnreachableRegistries(t *testing.T) {
	t.Parallel()
	w := furnished(t, setup{})
	hung := harness.StartRegistry(t, "hung", harness.RegistryOptions{})
	if err := hung.Freeze(); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse("http://" + w.reg["us"].Addr)
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(target))
	t.Cleanup(secure.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	skewed := httputil.NewSingleHostReverseProxy(target)
	skewed.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		return nil
	}
	past := httptest.NewServer(skewed)
	t.Cleanup(past.Close)
	secureAt, pastAt := secure.Listener.Addr().String(), past.Listener.Addr().String()
	config := fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
data: %s
registries:
  eu: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}
  nameless: {kind: oci, address: nothing.invalid, auth: {anonymous: true}}
  closed: {kind: oci, address: "127.0.0.1:%d", plainHTTP: true, auth: {anonymous: true}}
  hung: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}
  distrusted: {kind: oci, address: %q, auth: {anonymous: true}}
  trusted: {kind: oci, address: %q, auth: {anonymous: true}, tls: {ca: %s}}
  misnamed: {kind: oci, address: %q, auth: {anonymous: true}, tls: {ca: %s}}
  plain: {kind: oci, address: %q, auth: {anonymous: true}}
  past: {kind: oci, address: %q, plainHTTP: true, auth: {anonymous: true}}
routes:
  - {name: prod, from: eu, to: [nameless, closed, hung, distrusted], repositories: {include: ["team/**"]}}
`, w.Data(), w.reg["eu"].Addr, harness.FreePort(t), hung.Addr, secureAt+"/a", secureAt+"/b", ca, strings.Replace(secureAt, "127.0.0.1", "localhost", 1), ca, pastAt+"/a", pastAt+"/b")
	if err := os.WriteFile(w.ConfigPath(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	told := w.look(1)
	w.expect(told, "eu", "pull", "ok", "team/app:v1", "")
	w.expect(told, "nameless", "name", "failed", "nothing.invalid", "check")
	w.expect(told, "closed", "connect", "failed", "nothing listens there", "port")
	w.expect(told, "hung", "connect", "ok", "", "") // by the kernel
	w.expect(told, "hung", "api", "failed", "no answer within 10s", "registry is up")
	w.expect(told, "hung", "push", "skipped", "does not answer", "")
	w.expect(told, "distrusted", "tls", "failed", "which is not trusted here", "tls.ca")
	w.expect(told, "distrusted", "push", "skipped", "no trusted connection", "")
	w.expect(told, "trusted", "tls", "ok", "TLS 1.3, certificate by", "")
	w.expect(told, "trusted", "identity", "ok", "anonymous", "")
	w.expect(told, "misnamed", "tls", "failed", "not for localhost", "names")
	w.expect(told, "plain", "tls", "failed", "does not speak TLS", "plainHTTP")
	w.expect(told, "past", "clock", "warning", "1h0m", "chrony")
}

// An interrupt ends a look at once, with its own exit code.
func TestCheckInterrupted(t *testing.T) {
	t.Parallel()
	w := furnished(t, setup{})
	asked := make(chan struct{}, 100)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	for i := range w.Config.Registries {
		if w.Config.Registries[i].Name == "us" {
			w.Config.Registries[i].Addr = silent.Listener.Addr().String()
		}
	}
	w.WriteConfig()
	log := filepath.Join(t.TempDir(), "check.log")
	binary, err := harness.Binary(harness.Twinport)
	if err != nil {
		t.Fatal(err)
	}
	p := harness.StartProcess(t, "check", binary, []string{"check", "us", "--config", w.ConfigPath()}, nil, log)
	<-asked
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	code, err := p.Wait(time.Minute)
	if err != nil || code != 130 {
		raw, _ := os.ReadFile(log)
		t.Errorf("exit %d, %v\n%s", code, err, raw)
	}
}

// A daemon that hears of a probe copies it nowhere.
func TestCheckBesideADaemon(t *testing.T) {
	t.Parallel()
	w := start(t, setup{twoWay: true, exact: true})
	image := w.content.Image(harness.ImageSpec{})
	w.push("team/app", image, "v1")
	w.push("team/web", image, "v1")
	harness.WaitFor(t, "us to have both", time.Minute, func(ctx context.Context) error {
		if err := w.us.Has(ctx, "team/app", "v1", image, false); err != nil {
			return err
		}
		return w.us.Has(ctx, "team/web", "v1", image, false)
	})
	before := w.before()
	for range 3 {
		told := w.look(0)
		w.expect(told, "us", "push", "ok", "twinport-check-", "")
		w.expect(told, "eu", "push", "ok", "twinport-check-", "")
	}
	// what comes after the probes has been heard after them
	w.push("team/app", w.content.Image(harness.ImageSpec{}), "v2")
	harness.WaitFor(t, "v2 at us", time.Minute, func(ctx context.Context) error {
		_, err := w.us.Digest(ctx, "team/app", "v2")
		return err
	})
	for _, name := range []string{"eu", "us"} {
		if now := w.holds(name); strings.Contains(now, "twinport-check") {
			t.Errorf("%s holds\n%s, before\n%s", name, now, before[name])
		}
	}
	if r := w.Command("jobs", "list", "--output", "json"); strings.Contains(r.Stdout, "twinport-check") {
		t.Errorf("a probe is a job:\n%s", r.Stdout)
	}
}
