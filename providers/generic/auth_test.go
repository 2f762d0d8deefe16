package generic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func protected() *providertest.Fake {
	return &providertest.Fake{Username: "robot", Password: "s3cr3t-password", Tokens: true}
}

// One exchange serves all requests of a scope set, however many ask at once.
func TestOneTokenForAll(t *testing.T) {
	fake := protected()
	reg := open(t, fake, account)
	repo := reg.Repository("team/app")
	providertest.PushImage(t, repo, "v1", nil)
	before := fake.Count("GET", "/token")
	if before != 1 {
		t.Fatalf("%d exchanges for one repository, want 1", before)
	}
	fake.Revoke() // all at once find their token refused
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fake.Count("GET", "/token") - before; n < 1 || n > 2 {
		t.Fatalf("%d exchanges for 32 requests, want one", n)
	}
}

// A token refused in the middle of an upload is fetched anew, and nothing lost.
func TestRefusedInTheMiddle(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		fake := protected()
		repo := open(t, fake, account).Repository("team/app")
		content := providertest.Random(size)
		desc := providertest.Describe(v1.MediaTypeImageLayer, content)
		upload, _, err := repo.Start(t.Context(), desc, nil)
		if err != nil {
			t.Fatal(err)
		}
		fake.Revoke()
		if err := upload.Put(t.Context(), providertest.Bytes(content)); err != nil {
			t.Fatal(err)
		}
		if got, _ := fake.Blob("team/app", desc.Digest); len(got) != size {
			t.Fatalf("%d bytes arrived of %d", len(got), size)
		}
	}
}

// A large blob waits for the registry's word before its bytes travel, so that a
// refusal costs none of them; a small one is sent at once.
func TestLargeBlobsAreAskedAboutFirst(t *testing.T) {
	for size, want := range map[int]string{2 << 20: "", 2<<20 + 1: "100-continue"} {
		fake := protected()
		var puts []string
		fake.Before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				if puts = append(puts, r.Header.Get("Expect")); len(puts) == 1 {
					fake.Revoke() // it is asked again
				}
			}
			return false
		}
		providertest.PushBlob(t, open(t, fake, account).Repository("team/app"), providertest.Random(size))
		if len(puts) != 2 || puts[0] != want || puts[1] != want {
			t.Errorf("%d bytes: PUTs that expect %q, want two of %q", size, puts, want)
		}
	}
}

func TestWrongPassword(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		fake := protected()
		fake.Tokens = tokens
		reg := open(t, fake, func(s *generic.Spec) {
			s.Auth = generic.Auth{Username: "robot", Password: plain("wrong-password")}
		})
		_, err := reg.Repository("team/app").Resolve(t.Context(), "v1")
		var told *oci.RegistryError
		if !errors.Is(err, oci.ErrDenied) || !errors.As(err, &told) || told.Hint == "" {
			t.Fatalf("got %v, want denied with a hint", err)
		}
		if n := len(fake.Requests()); n > 2 {
			t.Fatalf("%d requests with a wrong password: accounts are locked for less", n)
		}
		if err := reg.Ping(t.Context()); err != nil {
			t.Fatalf("ping: %v; a challenge is an answer", err)
		}
	}
}

// A secret is asked each time, so a rotated one works at once.
func TestRotatedPassword(t *testing.T) {
	fake := protected()
	fake.Tokens = false
	password := "s3cr3t-password"
	reg := open(t, fake, func(s *generic.Spec) {
		s.Auth = generic.Auth{Username: "robot", Password: func() (string, error) { return password, nil }}
	})
	repo := reg.Repository("team/app")
	providertest.PushImage(t, repo, "v1", nil)
	fake.Password, password = "another-password", "another-password"
	if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
}

func TestSecretThatCannotBeRead(t *testing.T) {
	fault := errors.New("no such file")
	reg := open(t, protected(), func(s *generic.Spec) {
		s.Auth = generic.Auth{Username: "robot", Password: func() (string, error) { return "", fault }}
	})
	if _, err := reg.Repository("team/app").Resolve(t.Context(), "v1"); !errors.Is(err, fault) {
		t.Fatalf("got %v, want the file's fault", err)
	}
}

func TestDockerConfig(t *testing.T) {
	for name, entry := range map[string]string{
		"password":       `{"auth":"cm9ib3Q6czNjcjN0LXBhc3N3b3Jk"}`,
		"identity token": `{"auth":"PHRva2VuPjo=","identitytoken":"s3cr3t-password"}`,
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("DOCKER_CONFIG", home)
			fake := protected()
			server := httptest.NewServer(fake)
			t.Cleanup(server.Close)
			config := fmt.Sprintf(`{"auths":{%q:%s}}`, strings.TrimPrefix(server.URL, "http://"), entry)
			if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			reg := client(t, server.URL, func(s *generic.Spec) { s.Auth = generic.Auth{} })
			providertest.PushImage(t, reg.Repository("team/app"), "v1", nil)
			method := "GET"
			if name == "identity token" {
				method = "POST"
			}
			if fake.Count(method, "/token") == 0 {
				t.Fatalf("no exchange by %s", method)
			}
		})
	}
}

func TestStaticToken(t *testing.T) {
	var got atomic.Value
	reg := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") != "Bearer s3cr3t-token" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://elsewhere.example/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"tags":[]}`)
	}), func(s *generic.Spec) { s.Auth = generic.Auth{Token: plain("s3cr3t-token")} })
	for _, err := range reg.Repository("team/app").Tags(t.Context()) {
		t.Fatal(err)
	}
	if got.Load() != "Bearer s3cr3t-token" {
		t.Fatalf("sent %q", got.Load())
	}
}

// realms answers requests for tokens with what answer gives, and lets in who
// has one.
func realms(realm string, asked *[]string, answer func() string) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		h, status, body := http.Header{}, 200, `{"tags":["v1"]}`
		switch {
		case strings.HasSuffix(req.URL.Path, "/token"):
			*asked = append(*asked, req.URL.String())
			body = answer()
		case req.Header.Get("Authorization") == "":
			status = 401
			h.Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
	})
}

func tags(ctx context.Context, repo oci.Repository) (names []string, err error) {
	for tag, e := range repo.Tags(ctx) {
		if e != nil {
			return names, e
		}
		names = append(names, tag.Name)
	}
	return names, nil
}

func TestTokenLife(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		// fresh: no new exchange after that long; stale: one.
		fresh, stale time.Duration
	}{
		{"told", `{"token":"abc","expires_in":300}`, 230 * time.Second, 290 * time.Second},
		{"not told", `{"access_token":"abc"}`, 40 * time.Second, 50 * time.Second},
		{"nonsense", `{"token":"abc","expires_in":-5}`, 40 * time.Second, 50 * time.Second},
		{"endless", `{"token":"abc","expires_in":1e300}`, 23 * time.Hour, 24 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []string
				reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Auth: generic.Auth{Anonymous: true}},
					realms("https://registry.example/token", &asked, func() string { return c.answer }))
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for _, step := range []struct {
					at   time.Duration
					want int
				}{{0, 1}, {c.fresh, 1}, {c.stale, 2}} {
					time.Sleep(time.Until(began.Add(step.at)))
					if _, err := tags(t.Context(), reg.Repository("team/app")); err != nil {
						t.Fatal(err)
					}
					if len(asked) != step.want {
						t.Fatalf("after %s: %d exchanges, want %d", step.at, len(asked), step.want)
					}
				}
			})
		})
	}
}

func TestRealms(t *testing.T) {
	for _, c := range []struct {
		realm string
		allow []string
		want  error
	}{
		{"https://registry.example/token", nil, nil},
		{"/token", nil, nil},
		{"https://8.8.8.8/token", nil, nil},
		{"http://8.8.8.8/token", nil, oci.ErrDenied},
		{"https://10.0.0.1/token", nil, oci.ErrDenied},
		{"https://127.0.0.1/token", nil, oci.ErrDenied},
		{"https://[::1]/token", nil, oci.ErrDenied},
		{"https://[::ffff:10.0.0.1]/token", nil, oci.ErrDenied},
		{"https://169.254.169.254/token", nil, oci.ErrDenied},
		{"https://localhost/token", nil, oci.ErrDenied},
		{"http://registry.example:80/token", nil, nil}, // a proxy ends TLS
		{"http://10.0.0.1/token", []string{"10.0.0.0/8"}, nil},
		{"http://auth.internal/token", []string{".internal"}, nil},
		{"http://auth.internal/token", []string{"auth.internal"}, nil},
		{"http://auth.internal:8080/token", []string{"auth.internal:8080"}, nil},
		{"http://auth.internal:8081/token", []string{"auth.internal:8080", "127.0.0.0/8"}, oci.ErrUnreachable},
		{"https://localhost/token", []string{"127.0.0.0/8", "::1"}, nil},
		{"ftp://8.8.8.8/token", nil, oci.ErrDenied},
	} {
		t.Run(c.realm+" "+strings.Join(c.allow, " "), func(t *testing.T) {
			t.Parallel()
			var asked []string
			reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Redirects: c.allow, Auth: generic.Auth{Anonymous: true}},
				realms(c.realm, &asked, func() string { return `{"token":"abc"}` }))
			if err != nil {
				t.Fatal(err)
			}
			_, err = tags(t.Context(), reg.Repository("team/app"))
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil && len(asked) > 0 {
				t.Fatalf("asked %v", asked)
			}
			if errors.Is(c.want, oci.ErrDenied) && strings.HasPrefix(c.realm, "http") && !strings.Contains(err.Error(), "redirects.allow") {
				t.Fatalf("no hint: %v", err)
			}
		})
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for _, answer := range []string{``, `[]`, `{}`, `{"token":""}`, `{"token":"a b"}`, `{"token":"a\nb"}`, `{"token":5}`, `{"token":"` + strings.Repeat("x", 100_000) + `"}`} {
		var asked []string
		reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Auth: generic.Auth{Anonymous: true}},
			realms("/token", &asked, func() string { return answer }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tags(t.Context(), reg.Repository("team/app")); !errors.Is(err, oci.ErrInvalid) {
			t.Fatalf("%.30q: got %v, want invalid", answer, err)
		}
	}
	var asked []string
	reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Auth: generic.Auth{Anonymous: true}},
		realms("/token", &asked, func() string { return `{"token":"` + strings.Repeat("x", 2<<20) }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tags(t.Context(), reg.Repository("team/app")); !errors.Is(err, oci.ErrTooLarge) {
		t.Fatalf("an endless token: got %v, want too large", err)
	}
}

// A mount that the account may not make becomes an upload.
func TestMountWithoutTheRight(t *testing.T) {
	fake := protected()
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" && strings.Contains(r.URL.RawQuery, "secret") {
			providertest.Fail(w, 403, "DENIED", "not yours")
			return true
		}
		return false
	}
	repo := open(t, fake, account).Repository("team/app")
	content := []byte("layer")
	upload, mounted, err := repo.Start(t.Context(), providertest.Describe("", content), []string{"secret/app"})
	if err != nil || mounted {
		t.Fatalf("mounted %v, %v", mounted, err)
	}
	if err := upload.Put(t.Context(), providertest.Bytes(content)); err != nil {
		t.Fatal(err)
	}
}
