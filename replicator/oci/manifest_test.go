package oci_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	someDigest  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	otherDigest = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func manifest(mediaType, text string) oci.Manifest {
	return oci.Manifest{MediaType: mediaType, Digest: digest.FromString(text), Bytes: []byte(text)}
}

// list is n comma separated pieces.
func list(n int, piece string) string {
	return strings.TrimSuffix(strings.Repeat(piece+",", n), ",")
}

// distinct is n descriptors of different digests.
func distinct(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"digest":"sha256:%064x","size":1},`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// TestHostileManifests: one lie of a registry per line. Each is refused by
// kind, and decoding it takes a bounded multiple of its bytes.
func TestHostileManifests(t *testing.T) {
	const mib = 1 << 20
	index, image := v1.MediaTypeImageIndex, v1.MediaTypeImageManifest
	for _, c := range []struct {
		name, mediaType, text string
		want                  error
	}{
		{"no JSON", image, "<html>", oci.ErrInvalid},
		{"empty", image, "", oci.ErrInvalid},
		{"a list", image, "[]", oci.ErrInvalid},
		{"two documents", image, `{}{}`, oci.ErrInvalid},
		{"schema 1 by type", oci.MediaTypeDockerSchema1Sig, `{}`, oci.ErrUnsupported},
		{"schema 1 by content", image, `{"schemaVersion":1,"fsLayers":[]}`, oci.ErrUnsupported},
		{"a digest of another algorithm", image, `{"layers":[{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}]}`, oci.ErrInvalid},
		{"a digest in capitals", image, `{"layers":[{"digest":"` + strings.ToUpper(someDigest) + `","size":1}]}`, oci.ErrInvalid},
		{"a digest that is a path", image, `{"layers":[{"digest":"sha256:../../../../etc/passwd","size":1}]}`, oci.ErrInvalid},
		{"a digest cut short", image, `{"layers":[{"digest":"sha256:aaaa","size":1}]}`, oci.ErrInvalid},
		{"no digest", index, `{"manifests":[{}]}`, oci.ErrInvalid},
		{"a negative size", image, `{"layers":[{"digest":"` + someDigest + `","size":-1}]}`, oci.ErrInvalid},
		{"a size of exabytes", image, `{"layers":[{"digest":"` + someDigest + `","size":9223372036854775807}]}`, oci.ErrInvalid},
		{"a size beyond 64 bits", image, `{"layers":[{"digest":"` + someDigest + `","size":99999999999999999999}]}`, oci.ErrInvalid},
		{"a size that is a text", image, `{"layers":[{"digest":"` + someDigest + `","size":"1"}]}`, oci.ErrInvalid},
		{"a subject without a digest", image, `{"subject":{"size":1}}`, oci.ErrInvalid},
		{"layers that are an object", image, `{"layers":{}}`, oci.ErrInvalid},
		{"depth", image, strings.Repeat(`{"config":`, mib/10), oci.ErrInvalid},
		{"depth in lists", image, `{"annotations":` + strings.Repeat("[", 2*mib) + strings.Repeat("]", 2*mib) + `}`, oci.ErrInvalid},
		{"more children than are followed", index, `{"manifests":[` + distinct(oci.MaxReferences+1) + `]}`, oci.ErrInvalid},
		{"a million empty children", index, `{"manifests":[` + list(4*mib/3-20, "{}") + `]}`, oci.ErrInvalid},
		{"a million nulls", image, `{"layers":[` + list(4*mib/5-20, "null") + `]}`, oci.ErrInvalid},
		{"a million numbers", image, `{"layers":[` + list(4*mib/2-20, "1") + `]}`, oci.ErrInvalid},
		{"a million URLs", image, `{"layers":[{"digest":"` + someDigest + `","size":1,"urls":[` + list(mib, `""`) + `]}]}`, oci.ErrInvalid},
		{"a million annotations", image, `{"annotations":{` + list(mib/2, `"a":""`) + `}}`, oci.ErrInvalid},
		{"lists of lists", image, `{"annotations":[` + list(mib, `[]`) + `]}`, oci.ErrInvalid},
		{"no text at all in the values", image, `{"layers":[` + strings.Repeat(`"\\",`, mib/2) + `1]}`, oci.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := manifest(c.mediaType, c.text)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := oci.ParseReferences(m)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && (len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x1b")) {
				t.Errorf("the error is %d bytes: %.500q", len(err.Error()), err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 64*mib {
				t.Errorf("decoding %d bytes took %d MiB", len(c.text), took/mib)
			}
		})
	}
}

// TestLargeManifests: what is large and sound is read.
func TestLargeManifests(t *testing.T) {
	t.Run("as many children as are followed", func(t *testing.T) {
		refs, err := oci.ParseReferences(manifest(v1.MediaTypeImageIndex, `{"manifests":[`+distinct(oci.MaxReferences)+`]}`))
		if err != nil || len(refs.Manifests) != oci.MaxReferences {
			t.Errorf("%d children, %v", len(refs.Manifests), err)
		}
	})
	t.Run("annotations of 3 MiB", func(t *testing.T) {
		text := `{"layers":[{"digest":"` + someDigest + `","size":1}],"annotations":{"big":"` + strings.Repeat(`,:[{\"`, 1<<19) + `"}}`
		refs, err := oci.ParseReferences(manifest(v1.MediaTypeImageManifest, text))
		if err != nil || len(refs.Blobs) != 1 {
			t.Errorf("%d blobs, %v", len(refs.Blobs), err)
		}
	})
	t.Run("children and layers at once are all followed", func(t *testing.T) {
		refs, err := oci.ParseReferences(manifest(v1.MediaTypeImageIndex,
			`{"manifests":[{"digest":"`+someDigest+`","size":1}],"layers":[{"digest":"`+otherDigest+`","size":1}]}`))
		if err != nil || len(refs.Manifests) != 1 || len(refs.Blobs) != 1 {
			t.Errorf("%+v, %v", refs, err)
		}
	})
}

func TestCountValues(t *testing.T) {
	for text, want := range map[string]int{
		"": 1, "1": 1, "[]": 2, `{"a":1}`: 3, `{"a":1,"b":[1,2]}`: 7, `["a,b:[{"]`: 2, `["\"]:,"]`: 2, `["\\","b"]`: 3,
		`["`: 2, `["\`: 2, `"`: 1,
	} {
		if got := oci.CountValues([]byte(text)); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}
