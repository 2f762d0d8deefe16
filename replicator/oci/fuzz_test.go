package oci_test

import (
	"bytes"
	"encoding/json"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// FuzzManifest: whatever a registry gives as a manifest, what is read of it is
// bounded, each digest once and usable, and no more than the document holds.
func FuzzManifest(f *testing.F) {
	for _, text := range []string{
		`{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":2},"layers":[{"digest":"` + otherDigest + `","size":3}]}`,
		`{"manifests":[{"mediaType":"` + v1.MediaTypeImageManifest + `","digest":"` + someDigest + `","size":7,"platform":{"os":"linux"}}]}`,
		`{"subject":{"digest":"` + someDigest + `","size":1},"artifactType":"a/b","annotations":{"a":"b"}}`,
	} {
		f.Add(v1.MediaTypeImageManifest, []byte(text))
	}
	f.Fuzz(func(t *testing.T, mediaType string, text []byte) {
		values := oci.CountValues(text)
		if json.Valid(text) {
			if n := count(t, text); values < n {
				t.Fatalf("%d values were counted as %d", n, values)
			}
		}
		refs, err := oci.ParseReferences(oci.Manifest{MediaType: mediaType, Digest: digest.FromBytes(text), Bytes: text})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") || len(err.Error()) > 400 {
				t.Fatalf("%q", err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatal("what is no JSON is a manifest")
		}
		seen := make(map[digest.Digest]bool)
		for _, descs := range [][]v1.Descriptor{refs.Manifests, refs.Blobs, refs.Foreign} {
			for _, desc := range descs {
				if oci.CheckDescriptor(desc) != nil || seen[desc.Digest] {
					t.Fatalf("descriptor %+v", desc)
				}
				seen[desc.Digest] = true
			}
		}
		if len(seen) > oci.MaxReferences+1 || len(seen) > values {
			t.Fatalf("%d references of %d values", len(seen), values)
		}
	})
}

// count is how many values, or begun containers, a decoder sees.
func count(t *testing.T, text []byte) int {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // any, also those that no float holds
	n := 0
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := token.(json.Delim); !ok || d == '[' || d == '{' {
			n++
		}
		if n > 100_000 {
			return n
		}
	}
}

// FuzzNames: what passes as a repository, tag or digest can be put into a path
// or file name and leads nowhere else.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"team/app", "..", "a/../b", "a//b", "a%2fb", "v1", "_x", someDigest, "sha512:..", "con", "a\x00", "ａ"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if oci.CheckRepository(name) == nil && (path.Clean("/"+name) != "/"+name || len(name) > 255 || name != strings.ToLower(name)) {
			t.Fatalf("repository %q", name)
		}
		if oci.CheckTag(name) == nil && (len(name) > 128 || strings.ContainsAny(name, "/\\%: ") || strings.HasPrefix(name, ".")) {
			t.Fatalf("tag %q", name)
		}
		if oci.IsDigest(name) {
			d := digest.Digest(name)
			if strings.ContainsAny(d.Encoded(), "/\\.%: ") || oci.CheckTag(oci.FallbackTag(d)) != nil {
				t.Fatalf("digest %q", name)
			}
		}
		if subject, _, ok := oci.CompanionSubject(name); ok && oci.CheckTag(name) != nil {
			t.Fatalf("tag %q is no tag, but goes with %s", name, subject)
		}
	})
}

// FuzzHashingReader: content passes whole and unchanged, or not at all.
func FuzzHashingReader(f *testing.F) {
	f.Add([]byte("content"), []byte("content"), int64(7), 3)
	f.Add([]byte("content"), []byte("conten"), int64(7), 1)
	f.Add([]byte(""), []byte("x"), int64(0), 1)
	f.Fuzz(func(t *testing.T, meant, sent []byte, size int64, step int) {
		if step < 1 || step > 1<<20 || size < 0 {
			return
		}
		desc := v1.Descriptor{Digest: digest.FromBytes(meant), Size: size}
		r := oci.NewHashingReader(&stepReader{sent, step}, desc)
		got, err := io.ReadAll(r)
		whole := bytes.Equal(meant, sent) && size == int64(len(sent))
		if whole != (err == nil) || whole && !bytes.Equal(got, meant) {
			t.Fatalf("%q of %q (%d): %v", got, meant, size, err)
		}
	})
}

type stepReader struct {
	left []byte
	step int
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.left[:min(len(s.left), s.step)])
	s.left = s.left[n:]
	return n, nil
}
