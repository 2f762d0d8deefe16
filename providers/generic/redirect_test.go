package generic_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func fetch(t *testing.T, reg *generic.Registry) (string, error) {
	t.Helper()
	r, err := reg.Repository("team/app").Fetch(t.Context(), someDesc)
	if err != nil {
		return "", err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	return string(content), err
}

func TestRedirects(t *testing.T) {
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials reached the storage")
		}
		switch r.URL.Path {
		case "/blob":
			_, _ = w.Write(someBlob)
		case "/back": // the storage sends back to the registry
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
		case "/expired":
			w.WriteHeader(http.StatusForbidden)
		case "/headless":
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", len(someBlob)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(someBlob[:1])
		}
	}))
	t.Cleanup(storage.Close)
	host := strings.TrimPrefix(storage.URL, "http://")
	type run struct {
		name  string
		allow []string
		serve http.HandlerFunc
		want  error
	}
	to := func(status int, location string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(status)
		}
	}
	runs := []run{
		{"not allowed", nil, to(307, storage.URL+"/blob"), oci.ErrDenied},
		{"loop", nil, to(307, "/v2/team/app/blobs/"+someDesc.Digest.String()), oci.ErrInvalid},
		{"no location", nil, to(307, ""), oci.ErrInvalid},
		{"other scheme", []string{host}, to(307, "file:///etc/passwd"), oci.ErrInvalid},
		{"metadata service", nil, to(307, "http://169.254.169.254/latest"), oci.ErrDenied},
		{"metadata service by name", nil, to(307, "https://localhost/latest"), oci.ErrDenied},
		{"expired", []string{host}, to(307, storage.URL+"/expired"), oci.ErrInterrupted},
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		runs = append(runs, run{fmt.Sprint(status), []string{"127.0.0.0/8"}, to(status, storage.URL+"/blob"), nil})
	}
	hops := 0
	runs = append(runs, run{"without end", nil, func(w http.ResponseWriter, r *http.Request) {
		hops++
		http.Redirect(w, r, fmt.Sprintf("/hop/%d", hops), http.StatusFound)
	}, oci.ErrInvalid})
	for _, c := range runs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			content, err := fetch(t, open(t, c.serve, func(s *generic.Spec) { s.Redirects = c.allow }))
			if !errors.Is(err, c.want) || c.want == nil && content != string(someBlob) {
				t.Fatalf("got %q, %v; want %v", content, err, c.want)
			}
			if errors.Is(c.want, oci.ErrDenied) && !strings.Contains(err.Error(), "redirects.allow") {
				t.Fatalf("no hint: %v", err)
			}
		})
	}
	t.Run("size of a blob whose address is signed for GET", func(t *testing.T) {
		reg := open(t, to(307, storage.URL+"/headless"), func(s *generic.Spec) { s.Redirects = []string{host} })
		n, err := reg.Repository("team/app").Stat(t.Context(), someDesc.Digest)
		if err != nil || n != someDesc.Size {
			t.Fatalf("got %d, %v", n, err)
		}
	})
	t.Run("credentials do not come back from elsewhere", func(t *testing.T) {
		registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/trap":
				if r.Header.Get("Authorization") != "" {
					t.Error("the storage has our credentials used")
				}
				_, _ = w.Write(someBlob)
			case r.Header.Get("Authorization") == "":
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				http.Redirect(w, r, storage.URL+"/back?to=http://"+r.Host+"/trap", http.StatusFound)
			}
		}))
		t.Cleanup(registry.Close)
		content, err := fetch(t, client(t, registry.URL, func(s *generic.Spec) { account(s); s.Redirects = []string{host} }))
		if err != nil || content != string(someBlob) {
			t.Fatalf("got %q, %v", content, err)
		}
	})
}

// The dialed address counts, not only what the name resolved to before.
func TestDialGuard(t *testing.T) {
	server := httptest.NewServer(&providertest.Fake{})
	t.Cleanup(server.Close)
	transport, err := generic.Transport(generic.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	for _, guarded := range []bool{false, true} {
		ctx := t.Context()
		if guarded {
			ctx = generic.WithGuard(ctx)
			transport.CloseIdleConnections()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if errors.Is(err, oci.ErrDenied) != guarded {
			t.Fatalf("guarded %v: got %v", guarded, err)
		}
	}
}

// Sessions may live at another address, if allowed, and never see credentials.
func TestUploadElsewhere(t *testing.T) {
	put := 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials reached another host")
		}
		if r.URL.Query().Get("digest") == someDesc.Digest.String() && r.URL.Query().Get("state") == "a b" {
			put++
		}
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(other.Close)
	for _, allowed := range []bool{false, true} {
		reg := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("Location", other.URL+"/session?state=a+b")
			w.WriteHeader(http.StatusAccepted)
		}), func(s *generic.Spec) {
			account(s)
			if allowed {
				s.Redirects = []string{"127.0.0.1"}
			}
		})
		upload, _, err := reg.Repository("team/app").Start(t.Context(), someDesc, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = upload.Put(t.Context(), providertest.Bytes(someBlob))
		if allowed && (err != nil || put != 1) || !allowed && !errors.Is(err, oci.ErrDenied) {
			t.Fatalf("allowed %v: %v, %d puts", allowed, err, put)
		}
	}
}
