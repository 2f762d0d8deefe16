package generic_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
)

// loginClient logs in to a fake by an identity that gives password n at its
// n-th asking.
func loginClient(t *testing.T, f *providertest.Fake, life time.Duration, refresh bool) (*generic.Registry, *atomic.Int64, *atomic.Int64) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	var asked, anew atomic.Int64
	spec := generic.Spec{Name: "r", Host: strings.TrimPrefix(server.URL, "http://"), PlainHTTP: true}
	rt, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	r, err := generic.NewWith(spec, rt, generic.Ways{Login: func(_ context.Context, again bool) (generic.Login, error) {
		n := asked.Add(1)
		if again {
			anew.Add(1)
		}
		l := generic.Login{Username: "robot", Password: fmt.Sprintf("password-%d", n), Expires: time.Now().Add(life)}
		if refresh {
			l.Username, l.Password, l.Refresh = "", "", l.Password
		}
		return l, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r, &asked, &anew
}

func TestLogin(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens %v", tokens), func(t *testing.T) {
			f := &providertest.Fake{Username: "robot", Password: "password-1", Tokens: tokens}
			r, asked, anew := loginClient(t, f, time.Hour, tokens)
			repo := r.Repository("team/app")
			m := providertest.PushImage(t, repo, "v1", nil)
			if asked.Load() != 1 {
				t.Fatalf("asked %d times while the login lives, want 1", asked.Load())
			}
			f.Password = "password-2" // the login ended before its time
			f.Revoke()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != m.Digest {
						t.Errorf("after the login was refused: %v, %v", desc.Digest, err)
					}
				})
			}
			wg.Wait()
			if asked.Load() != 2 || anew.Load() != 1 {
				t.Fatalf("asked %d times, %d of them anew, want 2 and 1", asked.Load(), anew.Load())
			}
		})
	}
}

func TestLoginAheadOfItsEnd(t *testing.T) {
	f := &providertest.Fake{}
	r, asked, _ := loginClient(t, f, -time.Second, false)
	f.Username, f.Password = "robot", "password-1"
	if _, err := r.Repository("team/app").Resolve(t.Context(), "v1"); err == nil {
		t.Fatal("no such tag, and no error")
	}
	f.Password = "password-2"
	for range r.Repository("team/app").Tags(t.Context()) {
		break
	}
	if asked.Load() < 2 {
		t.Fatalf("asked %d times, want again for each login that has ended", asked.Load())
	}
}
