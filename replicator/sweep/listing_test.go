package sweep

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

func TestListing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name   string
		n      int
		shape  string
		runs   int
		copies int
	}{
		{"none", 0, "", 0, 1},
		{"one", 1, "", 0, 1},
		{"just in memory", bufferedTags - 1, "shuffled", 0, 1},
		{"exactly a spill", bufferedTags, "", 1, 1},
		{"sorted ones stay one run", 5*bufferedTags + 7, "", 1, 1},
		{"backwards", 5*bufferedTags + 7, "backwards", 5, 1},
		{"shuffled", 5*bufferedTags + 7, "shuffled", 5, 1},
		{"each three times", 2 * bufferedTags, "shuffled", 6, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want, given []oci.Tag
			for i := range tt.n {
				tag := oci.Tag{Name: fmt.Sprintf("v%07d", i)}
				if i%2 == 0 {
					tag.Digest = digest.FromString(tag.Name)
				}
				if i%3 == 0 {
					tag.PushedAt = now.Add(-time.Duration(i) * time.Microsecond)
				}
				want = append(want, tag)
				for range tt.copies {
					given = append(given, tag)
				}
			}
			switch tt.shape {
			case "backwards":
				for i, j := 0, len(given)-1; i < j; i, j = i+1, j-1 {
					given[i], given[j] = given[j], given[i]
				}
			case "shuffled":
				random.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
			}
			l := &listing{dir: t.TempDir()}
			defer l.close()
			for _, tag := range given {
				if err := l.add(tag); err != nil {
					t.Fatal(err)
				}
			}
			if len(l.runs) != tt.runs {
				t.Errorf("%d runs, want %d", len(l.runs), tt.runs)
			}
			r, err := l.read()
			if err != nil {
				t.Fatal(err)
			}
			got, more, err := take(r, len(given)+1)
			if diff := cmp.Diff(want, got); diff != "" || more || err != nil {
				t.Error(more, err, diff)
			}
		})
	}
}

func TestListingIsBounded(t *testing.T) {
	l := &listing{n: maxTags}
	if err := l.add(oci.Tag{Name: "v1"}); oci.KindOf(err) != "too-large" {
		t.Errorf("got %v", err)
	}
}
