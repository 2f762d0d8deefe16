package providers_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// TestHubLooks: of 2,000 tags of Docker Hub only what was moved since the last
// look is listed, wherever it is by name; a list that comes in another order is
// read to its end.
func TestHubLooks(t *testing.T) {
	for _, unsorted := range []bool{false, true} {
		t.Run(fmt.Sprintf("unsorted %v", unsorted), func(t *testing.T) {
			t.Parallel()
			f := account(&providertest.Fake{Tokens: true, Page: 100}, "robot")
			fill(f, "team/app", 2000)
			base := time.Now()
			moved := map[string]time.Time{"v01234": time.Now().Add(200 * time.Hour)} // a clock gone wrong
			hub := &providertest.DockerHub{Fake: f, Unsorted: unsorted, Updated: func(_, tag string) time.Time {
				if at, ok := moved[tag]; ok {
					return at
				}
				n, _ := strconv.Atoi(tag[1:])
				return base.Add(-time.Hour - time.Duration(n*7919%2000)*time.Minute)
			}}
			reg := serve(t, "dockerhub", hub, nil)
			look := func(mark *oci.Mark) (tags map[string]string, requests int) {
				before := f.Count("GET", "/tags")
				tags = make(map[string]string)
				for tag, err := range reg.Repository("team/app").Tags(oci.WithMark(t.Context(), mark)) {
					if err != nil {
						t.Fatal(err)
					}
					tags[tag.Name] = tag.Digest.String()
				}
				return tags, f.Count("GET", "/tags") - before
			}
			first := oci.Mark{}
			if tags, _ := look(&first); len(tags) != 2000 || first.Partial || first.Next == "" {
				t.Fatalf("%d tags, %+v", len(tags), first)
			}
			pages := 1
			if unsorted {
				pages = 20
			}
			second := oci.Mark{Since: first.Next}
			if tags, requests := look(&second); len(tags) > 10 && !unsorted || !second.Partial || second.Next != first.Next || requests != pages {
				t.Errorf("nothing moved: %d tags by %d requests, %+v", len(tags), requests, second)
			}
			moved["v01999"] = time.Now()
			want := f.SetManifest("team/app", "v01999", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[],"new":true}`)).String()
			third := oci.Mark{Since: second.Next}
			if tags, requests := look(&third); tags["v01999"] != want || third.Next == second.Next || requests != pages {
				t.Errorf("%d tags by %d requests, %+v", len(tags), requests, third)
			}
			if n := f.Count("GET", "/manifests/") + f.Count("HEAD", "/manifests/"); n != 0 {
				t.Errorf("%d manifests asked for", n)
			}
		})
	}
}

// TestAllowanceIsSpread: a backfill from Docker Hub never uses the last tenth
// of the pulls, which are for pushes; and goes on as they come back.
func TestAllowanceIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, window = 100, 6 * time.Hour
		f := &providertest.Fake{}
		d := f.SetManifest("team/app", "v1", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
		var pulls []time.Time
		source, refused := "192.0.2.1", 0
		reg, err := providers.Open(
			generic.Spec{Name: "hub", Kind: "dockerhub", Host: "hub.test", PlainHTTP: true, Auth: generic.Auth{Anonymous: true}},
			transportFunc(func(r *http.Request) (*http.Response, error) {
				for len(pulls) > 0 && time.Since(pulls[0]) >= window {
					pulls = pulls[1:]
				}
				w := httptest.NewRecorder()
				if r.Method == http.MethodGet {
					pulls = append(pulls, time.Now())
				}
				w.Header().Set("Ratelimit-Limit", fmt.Sprintf("%d;w=21600", limit))
				w.Header().Set("Ratelimit-Remaining", fmt.Sprintf("%d;w=21600", max(limit-len(pulls), 0)))
				w.Header().Set("Docker-Ratelimit-Source", source)
				if len(pulls) > limit {
					refused++
				}
				f.ServeHTTP(w, r)
				return w.Result(), nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		repo := reg.Repository("team/app")
		background := oci.WithBackground(t.Context())
		done, left := 0, limit
		for began := time.Now(); time.Since(began) < 24*time.Hour; {
			_, err := repo.FetchManifest(background, d.String())
			var throttled *oci.ThrottledError
			switch {
			case err == nil:
				done++
				left = min(left, limit-len(pulls))
			case errors.As(err, &throttled) && throttled.Wait > 0:
				time.Sleep(throttled.Wait)
				if _, err := repo.Resolve(background, "v1"); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatal(err)
			}
		}
		if refused > 0 || left < limit/10-1 {
			t.Errorf("%d refused, at the least %d were left", refused, left)
		}
		if done < 3*limit {
			t.Errorf("%d pulls in 24 hours, of %d allowed", done, 4*limit)
		}
		if _, err := repo.FetchManifest(t.Context(), d.String()); err != nil {
			t.Errorf("a push's: %v", err)
		}
		// Under another address another allowance counts.
		source, pulls = "192.0.2.2", nil
		if _, err := repo.Resolve(background, "v1"); err != nil {
			t.Fatal(err)
		}
		if _, err := repo.FetchManifest(background, d.String()); err != nil {
			t.Errorf("another source's allowance: %v", err)
		}
	})
}
