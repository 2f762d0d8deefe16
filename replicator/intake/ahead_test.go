package intake_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/intake"
)

// Pushes of blobs are counted as ignored and nothing of them is stored; what
// can be used of them is passed on as a hint, within bounds.
func TestBlobsAreHints(t *testing.T) {
	const one = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	blob := func(repository, digest, size, action string) string {
		return fmt.Sprintf(`{"action":%q,"target":{"mediaType":"application/octet-stream","size":%s,"digest":%q,"repository":%q}}`, action, size, digest, repository)
	}
	for name, c := range map[string]struct {
		events []string
		want   []replicator.Blob
	}{
		"pushed":           {[]string{blob("acme/app", one, "7", "push")}, []replicator.Blob{{Registry: "eu", Repository: "app", Digest: one, Size: 7}}},
		"mounted":          {[]string{blob("acme/app", one, "7", "mount")}, nil},
		"pulled":           {[]string{blob("acme/app", one, "7", "pull")}, nil},
		"of another name":  {[]string{blob("other/app", one, "7", "push")}, nil},
		"of no repository": {[]string{blob("acme/../app", one, "7", "push")}, nil},
		"of no digest":     {[]string{blob("acme/app", "sha256:../..", "7", "push")}, nil},
		"no size":          {[]string{blob("acme/app", one, "0", "push")}, nil},
		"less than none":   {[]string{blob("acme/app", one, "-7", "push")}, nil},
		"a size of text":   {[]string{blob("acme/app", one, `"7"`, "push")}, nil},
		"a size too great": {[]string{blob("acme/app", one, "92233720368547758070", "push")}, nil},
		"a size that is an object beside a good one": {
			[]string{blob("acme/app", one, "{}", "push"), blob("acme/app", one, "8", "push")},
			[]replicator.Blob{{Registry: "eu", Repository: "app", Digest: one, Size: 8}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []replicator.Blob
			s := &store{}
			in := intake.New(intake.Options{
				Accept: s.accept, Now: func() time.Time { return receipt },
				Ahead: func(blobs []replicator.Blob) { got = append(got, blobs...) },
			})
			in.Swap([]intake.Registry{{Name: "eu", Prefix: "acme", Decoder: generic.Webhook{}, Secrets: secrets("s")}})
			body := `{"events":[` + strings.Join(c.events, ",") + `]}`
			if w := send(in, post("/hooks/eu", body, "Authorization", "wrong")); w.Code != http.StatusUnauthorized || got != nil {
				t.Fatalf("a stranger: %d, %v", w.Code, got)
			}
			w := send(in, post("/hooks/eu", body, "Authorization", "s"))
			if n := countsOf(t, w.Body); w.Code != http.StatusAccepted || n != (counts{0, len(c.events)}) || s.calls != 0 {
				t.Errorf("answered %d %+v after %d commits", w.Code, n, s.calls)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	var many []string
	for range replicator.MaxWebhookBlobs + 10 {
		many = append(many, blob("app", one, "7", "push"))
	}
	var got int
	in := intake.New(intake.Options{Ahead: func(blobs []replicator.Blob) { got += len(blobs) }})
	in.Swap([]intake.Registry{{Name: "eu", Decoder: generic.Webhook{}}})
	if w := send(in, post("/hooks/eu", `{"events":[`+strings.Join(many, ",")+`]}`)); w.Code != http.StatusAccepted || got != replicator.MaxWebhookBlobs {
		t.Errorf("%d, %d of %d passed on", w.Code, got, len(many))
	}
}
