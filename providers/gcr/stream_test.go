package gcr

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator/oci"
)

// readListing reads an answer as list does.
func readListing(answer io.Reader) (map[string]string, *listing, error) {
	tags := make(map[string]string)
	l := &listing{tag: func(tag oci.Tag, _ error) bool {
		if _, twice := tags[tag.Name]; twice {
			tags[tag.Name] = "twice"
			return true
		}
		tags[tag.Name] = tag.Digest.String()
		return true
	}}
	body := &ration{r: answer, left: maxValue, all: maxListing}
	return tags, l, l.read(json.NewDecoder(body), body)
}

func TestListing(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	named := `"manifest":{"` + d + `":{"tag":["v1","v2"],"timeUploadedMs":"1778750497000","mediaType":"x","more":[1,{"a":null}]}}`
	for name, c := range map[string]struct {
		answer   string
		want     map[string]string
		children []string
		err      error
	}{
		"google's":             {`{"child":["a","b"],` + named + `,"name":"x","tags":["v1","v2"]}`, map[string]string{"v1": d, "v2": d}, []string{"a", "b"}, nil},
		"tags first":           {`{"tags":["v1","v2","v3"],` + named + `}`, map[string]string{"v1": d, "v2": d, "v3": ""}, nil, nil},
		"one without manifest": {`{` + named + `,"tags":["v1","v2","v3"]}`, map[string]string{"v1": d, "v2": d, "v3": ""}, nil, nil},
		"the specification's":  {`{"name":"x","tags":["v1"]}`, map[string]string{"v1": ""}, nil, nil},
		"nulls":                {`{"child":null,"manifest":null,"tags":null,"name":null}`, map[string]string{}, nil, nil},
		"nothing":              {`{}`, map[string]string{}, nil, nil},
		"null":                 {`null`, map[string]string{}, nil, nil},
		"what is no tag":       {`{"manifest":{"sha256:x":{"tag":["v1"]},"` + d + `":{"tag":["../v1"]}},"tags":["../v1"]}`, map[string]string{}, nil, nil},
		"an array":             {`[]`, nil, nil, errShape},
		"tags of another kind": {`{"tags":{"v1":1}}`, nil, nil, errShape},
		"cut":                  {`{"tags":["v1"`, nil, nil, io.ErrUnexpectedEOF},
		"cut at the end":       {`{"tags":["v1"]`, nil, nil, io.ErrUnexpectedEOF},
		"one value too large":  {`{"name":"` + strings.Repeat("x", 2*maxValue) + `"}`, nil, nil, errRation},
	} {
		got, l, err := readListing(strings.NewReader(c.answer))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
			continue
		}
		if c.err != nil {
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !slices.Equal(l.children, c.children) || l.some != (len(c.want) > 0 || name == "what is no tag") {
			t.Errorf("%s: children %v, some %v", name, l.children, l.some)
		}
	}
}

var padding = strings.Repeat("x", 2000)

// A flood is a listing that is written while it is read, of n manifests.
type flood struct {
	n, at int
	rest  []byte
}

func (f *flood) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		switch {
		case f.at > f.n:
			return 0, io.EOF
		case f.at == f.n:
			f.rest = []byte(`"x":{}},"tags":[]}`)
		case f.at == 0:
			f.rest = []byte(`{"manifest":{`)
		default:
			f.rest = fmt.Appendf(nil, `"sha256:%064x":{"imageSizeBytes":"1782","layerId":%q,"mediaType":"application/vnd.oci.image.manifest.v1+json","tag":["v%d"],"timeCreatedMs":"0","timeUploadedMs":"1778750497000"},`, f.at, padding, f.at)
		}
		f.at++
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// TestLargeListing: a listing is read as it comes, the whole may be larger than
// what one value is given, and one without an end is not read for ever.
func TestLargeListing(t *testing.T) {
	const n = 3_000
	if size := int64(n * len(padding)); size <= maxValue || maxListing < 20*size {
		t.Fatalf("a listing of %d bytes shows nothing of bounds of %d and %d", size, maxValue, maxListing)
	}
	tags, _, err := readListing(&flood{n: n})
	if err != nil || len(tags) != n-1 {
		t.Fatalf("%d tags, %v", len(tags), err)
	}
	for tag, d := range tags {
		if d == "twice" {
			t.Fatalf("%s is told twice", tag)
		}
	}
	l := &listing{tag: func(oci.Tag, error) bool { return true }}
	body := &ration{r: &flood{n: 1 << 40}, left: maxValue, all: 2 << 20}
	if err := l.read(json.NewDecoder(body), body); !errors.Is(err, errRation) {
		t.Errorf("a listing over its bound: %v", err)
	}
}
