package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

func read(t *testing.T, r io.ReadCloser, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func testBlobs(t *testing.T, s Suite, repo oci.Repository) {
	for _, size := range []int{0, 1, 5000, 1 << 20, 1<<20 + 1, 5 << 20} {
		content := Random(size)
		desc := PushBlob(t, repo, content)
		if got, err := repo.Stat(t.Context(), desc.Digest); err != nil || got != desc.Size && got != -1 {
			t.Fatalf("stat of %d bytes: %d, %v", size, got, err)
		}
		r, err := repo.Fetch(t.Context(), desc)
		if !bytes.Equal(read(t, r, err), content) {
			t.Fatalf("%d bytes come back otherwise", size)
		}
		desc.Size++
		if r, err := repo.Fetch(t.Context(), desc); err == nil {
			_, err = io.Copy(io.Discard, oci.NewHashingReader(r, desc))
			_ = r.Close()
			if err == nil {
				t.Fatalf("a blob of another size passes")
			}
		}
	}
	if s.SHA512 {
		content := Random(3000)
		desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.SHA512.FromBytes(content), Size: 3000}
		put(t, repo, desc, content)
		r, err := repo.Fetch(t.Context(), desc)
		if !bytes.Equal(read(t, r, err), content) {
			t.Fatal("a sha512 blob comes back otherwise")
		}
	}
}

func testRanges(t *testing.T, s Suite, repo oci.Repository) {
	ranges, ok := repo.(oci.RangeFetcher)
	if !ok {
		t.Skip("no ranges")
	}
	content := Random(100_000)
	desc := PushBlob(t, repo, content)
	for _, c := range []struct{ from, n int64 }{{0, 1}, {0, 100_000}, {99_999, 1}, {500, 1000}, {500, -1}, {0, -1}, {100_000, -1}} {
		r, err := ranges.FetchRange(t.Context(), desc, c.from, c.n)
		if !s.Ranges && errors.Is(err, oci.ErrUnsupported) {
			continue
		}
		end := c.from + c.n
		if c.n < 0 {
			end = desc.Size
		}
		if !bytes.Equal(read(t, r, err), content[c.from:end]) {
			t.Fatalf("range %d+%d comes back otherwise", c.from, c.n)
		}
	}
	if _, err := ranges.FetchRange(t.Context(), desc, 99_999, 2); !errors.Is(err, oci.ErrInvalid) {
		t.Fatalf("a range over the end: %v, want invalid", err)
	}
}

func testUploads(t *testing.T, s Suite, repo oci.Repository) {
	// The first are sent at once and can be sent again; the last is asked about
	// first, by Expect: 100-continue, and streamed.
	for _, size := range []int{100, 2 << 20, 3 << 20} {
		content := Random(size)
		desc := Describe(v1.MediaTypeImageLayer, content)
		upload, _, err := repo.Start(t.Context(), desc, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch n, err := upload.Offset(t.Context()); {
		case s.Resume && (err != nil || n != 0):
			t.Fatalf("a new session has %d bytes, %v", n, err)
		case !s.Resume && !errors.Is(err, oci.ErrUnsupported) && !errors.Is(err, oci.ErrUploadUnknown):
			t.Fatalf("a session that tells nothing: %v", err)
		}
		if err := upload.Cancel(t.Context()); err != nil && s.Strict {
			t.Fatalf("cancel: %v", err)
		}
		if _, err := repo.Stat(t.Context(), desc.Digest); !errors.Is(err, oci.ErrNotFound) {
			t.Fatalf("a canceled upload is there: %v", err)
		}
		upload, _, err = repo.Start(t.Context(), Describe(v1.MediaTypeImageLayer, Random(size)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := upload.Put(t.Context(), Bytes(content)); !errors.Is(err, oci.ErrMismatch) {
			t.Fatalf("%d bytes of another digest: %v, want a mismatch", size, err)
		}
		_ = upload.Cancel(t.Context())
		broken := errors.New("the source broke")
		upload, _, err = repo.Start(t.Context(), desc, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := upload.Put(t.Context(), brokenBody{content, broken}); !errors.Is(err, broken) {
			t.Fatalf("%d bytes of a source that breaks: %v, want its own error", size, err)
		}
		_ = upload.Cancel(t.Context())
		put(t, repo, desc, content)
		if n, err := repo.Stat(t.Context(), desc.Digest); err != nil || n != desc.Size && n != -1 {
			t.Fatalf("then as they are: %d bytes of %d, %v", n, size, err)
		}
	}
}

type brokenBody struct {
	content []byte
	err     error
}

func (b brokenBody) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	half := b.content[:len(b.content)/2]
	return io.NopCloser(io.MultiReader(bytes.NewReader(half[min(int(offset), len(half)):]), failing{b.err})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func testMount(t *testing.T, s Suite, from, to oci.Repository) {
	content := Random(2000)
	desc := PushBlob(t, from, content)
	upload, mounted, err := to.Start(t.Context(), desc, []string{from.Name()})
	if err != nil {
		t.Fatal(err)
	}
	if s.Mount && !mounted {
		t.Fatal("not mounted")
	}
	if !mounted {
		if err := upload.Put(t.Context(), Bytes(content)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := to.Stat(t.Context(), desc.Digest); err != nil {
		t.Fatal(err)
	}
	other := Random(2000)
	upload, mounted, err = to.Start(t.Context(), Describe(v1.MediaTypeImageLayer, other), []string{from.Name()})
	if err != nil || mounted {
		t.Fatalf("mount of what is not there: mounted %v, %v", mounted, err)
	}
	if err := upload.Put(t.Context(), Bytes(other)); err != nil {
		t.Fatal(err)
	}
}

func testManifests(t *testing.T, s Suite, repo oci.Repository) {
	ctx := t.Context()
	m := PushImage(t, repo, "v1", nil)
	index := Index(m.Descriptor())
	if _, err := repo.PushManifest(ctx, index.Digest.String(), index); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.PushManifest(ctx, "v2", index); err != nil {
		t.Fatal(err)
	}
	for reference, want := range map[string]oci.Manifest{
		"v1": m, "v2": index, m.Digest.String(): m, index.Digest.String(): index,
	} {
		got, err := repo.FetchManifest(ctx, reference)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != want.Digest || got.MediaType != want.MediaType || !bytes.Equal(got.Bytes, want.Bytes) {
			t.Fatalf("%s comes back as %s %s", reference, got.MediaType, got.Digest)
		}
		desc, err := repo.Resolve(ctx, reference)
		if err != nil || desc.Digest != want.Digest || desc.Size != int64(len(want.Bytes)) || desc.MediaType != want.MediaType {
			t.Fatalf("%s resolves to %+v, %v", reference, desc, err)
		}
	}
	if _, err := repo.PushManifest(ctx, m.Digest.String(), index); !errors.Is(err, oci.ErrInvalid) {
		t.Fatalf("a manifest under another's digest: %v, want invalid", err)
	}
	if !s.Strict {
		return
	}
	lacking := Image(nil, Describe("", Random(10)), Describe(v1.MediaTypeImageLayer, Random(10)))
	if _, err := repo.PushManifest(ctx, "v3", lacking); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("a manifest without its blobs: %v, want blob unknown", err)
	}
	if _, err := repo.PushManifest(ctx, "v3", Index(lacking.Descriptor())); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("an index without its manifests: %v, want blob unknown", err)
	}
	nonsense := oci.Manifest{MediaType: v1.MediaTypeImageManifest, Bytes: []byte("{"), Digest: digest.FromString("{")}
	if _, err := repo.PushManifest(ctx, "v3", nonsense); !errors.Is(err, oci.ErrRefused) {
		t.Fatalf("a manifest that is none: %v, want refused", err)
	}
}

func testAbsent(t *testing.T, repo oci.Repository) {
	ctx := t.Context()
	for range 2 { // without the repository, then with it
		d := digest.FromBytes(Random(10))
		for what, ask := range map[string]func() error{
			"manifest by tag":    func() error { _, err := repo.FetchManifest(ctx, "absent"); return err },
			"manifest by digest": func() error { _, err := repo.FetchManifest(ctx, d.String()); return err },
			"tag":                func() error { _, err := repo.Resolve(ctx, "absent"); return err },
			"digest":             func() error { _, err := repo.Resolve(ctx, d.String()); return err },
			"size":               func() error { _, err := repo.Stat(ctx, d); return err },
			"blob":               func() error { _, err := repo.Fetch(ctx, v1.Descriptor{Digest: d, Size: 10}); return err },
		} {
			if err := ask(); !errors.Is(err, oci.ErrNotFound) {
				t.Fatalf("absent %s: %v, want not found", what, err)
			}
		}
		PushImage(t, repo, "v1", nil)
	}
}

func testTags(t *testing.T, repo oci.Repository) {
	for _, err := range repo.Tags(t.Context()) {
		if !errors.Is(err, oci.ErrRepositoryUnknown) {
			t.Fatalf("tags of a repository that is not there: %v", err)
		}
	}
	m := PushImage(t, repo, "t00", nil)
	want := []string{"t00"}
	for i := 1; i < 25; i++ {
		tag := fmt.Sprintf("t%02d", i)
		want = append(want, tag)
		if _, err := repo.PushManifest(t.Context(), tag, m); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for tag, err := range repo.Tags(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tag.Name)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Fatalf("tags %v, want %v", got, want)
	}
	for range repo.Tags(t.Context()) {
		break // an early end is no fault
	}
}

func testCatalog(t *testing.T, s Suite, reg oci.Registry, name string) {
	want := []string{name + "/a", name + "/b", name + "/c/d"}
	for _, n := range want {
		PushImage(t, reg.Repository(n), "v1", nil)
	}
	found := 0
	for n, err := range reg.Repositories(t.Context()) {
		if err != nil {
			if s.Catalog || !errors.Is(err, oci.ErrUnlistable) {
				t.Fatal(err)
			}
			return
		}
		if slices.Contains(want, n) {
			found++
		}
	}
	if found != len(want) {
		t.Fatalf("%d of %d repositories listed", found, len(want))
	}
}

func testReferrers(t *testing.T, s Suite, repo oci.Repository) {
	ctx := t.Context()
	m := PushImage(t, repo, "v1", nil)
	subject := m.Descriptor()
	if !s.Referrers {
		for _, err := range repo.Referrers(ctx, subject.Digest) {
			if !errors.Is(err, oci.ErrUnsupported) {
				t.Fatalf("referrers without the API: %v, want unsupported", err)
			}
			return
		}
		t.Fatal("no referrers API, and no error")
	}
	for desc, err := range repo.Referrers(ctx, subject.Digest) {
		t.Fatalf("a referrer nobody pushed: %v, %v", desc, err)
	}
	want := map[digest.Digest]bool{}
	for range 3 {
		want[PushImage(t, repo, "", &subject).Digest] = true
	}
	for desc, err := range repo.Referrers(ctx, subject.Digest) {
		if err != nil || !want[desc.Digest] {
			t.Fatalf("referrer %v, %v", desc, err)
		}
		delete(want, desc.Digest)
	}
	if len(want) > 0 {
		t.Fatalf("referrers missing: %v", want)
	}
}

func testNames(t *testing.T, reg oci.Registry) {
	for _, name := range []string{"", "Upper", "../etc", "a//b", "a?x=1", "a b"} {
		if _, err := reg.Repository(name).Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrInvalid) {
			t.Errorf("repository %q: %v, want invalid", name, err)
		}
	}
	for _, reference := range []string{"", "../x", "sha256:abc", "a/b", "a?b"} {
		if _, err := reg.Repository("team/app").FetchManifest(t.Context(), reference); !errors.Is(err, oci.ErrInvalid) {
			t.Errorf("reference %q: %v, want invalid", reference, err)
		}
	}
}
