package generic_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// FuzzAnswer gives one answer to everything: what comes of it is well-formed or
// a classified error that is fit to be shown.
func FuzzAnswer(f *testing.F) {
	statuses := []int{200, 201, 202, 206, 304, 400, 401, 403, 404, 405, 416}
	f.Add(0, v1.MediaTypeImageManifest, "", someDigest(), "", []byte(`{"schemaVersion":2}`))
	f.Add(0, v1.MediaTypeImageIndex, `<?n=1&last=b>; rel="next"`, "", "", []byte(`{"tags":["a"],"manifests":[]}`))
	f.Add(3, "", "", "", "bytes 0-0/12", []byte("s"))
	f.Add(6, "application/json", "", "", `Bearer realm="/token",scope="a:b:c"`, []byte(`{"token":"t","expires_in":-1}`))
	f.Add(2, "", "", "", "0-5", []byte{})
	f.Fuzz(func(t *testing.T, status int, contentType, link, told, other string, body []byte) {
		header := http.Header{
			"Content-Type": {contentType}, "Link": {link}, "Docker-Content-Digest": {told}, "Content-Range": {other}, "Range": {other},
			"Www-Authenticate": {other}, "Location": {"/" + strings.TrimLeft(other, "/\\")}, "Content-Encoding": {link},
		}
		status = statuses[(status%len(statuses)+len(statuses))%len(statuses)]
		repo := repository(t, "oci", answering(status, header, string(body)))
		check := func(what string, err error) {
			if err == nil {
				return
			}
			if text := err.Error(); len(text) > 2000 || strings.ContainsAny(text, "\n\r\x00\x1b") {
				t.Errorf("%s: %q", what, text)
			}
			if oci.KindOf(err) == "other" {
				t.Errorf("%s: %v has no kind", what, err)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		m, err := repo.FetchManifest(ctx, "v1")
		check("manifest", err)
		if err == nil && m.Digest.Algorithm().FromBytes(m.Bytes) != m.Digest {
			t.Errorf("%s is not what was given", m.Digest)
		}
		desc, err := repo.Resolve(ctx, "v1")
		check("resolve", err)
		if err == nil && oci.CheckDescriptor(desc) != nil {
			t.Errorf("resolved %+v", desc)
		}
		size, err := repo.Stat(ctx, someDesc.Digest)
		check("stat", err)
		if err == nil && size < -1 {
			t.Errorf("size %d", size)
		}
		check("blob", readBlob(ctx, repo))
		check("put", put(ctx, repo))
		_, err = repo.PushManifest(ctx, "v1", someManifest)
		check("push", err)
		n := 0
		for tag, err := range repo.Tags(ctx) {
			check("tags", err)
			if n++; err == nil && (oci.CheckTag(tag.Name) != nil || n > len(body)) {
				t.Fatalf("tag %d: %+v", n, tag)
			}
		}
		for desc, err := range repo.Referrers(ctx, someDesc.Digest) {
			check("referrers", err)
			if err == nil && oci.CheckDescriptor(desc) != nil {
				t.Errorf("referrer %+v", desc)
			}
		}
	})
}

func someDigest() string { return digest.FromString("some").String() }
