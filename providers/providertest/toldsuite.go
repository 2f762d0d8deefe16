package providertest

import (
	"testing"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// RunTold holds what a fake tells of pushes against its decoder: each push is
// told once, in words that are read as what was pushed, and what is refused is
// not told. told gives what has been told so far.
func RunTold(t *testing.T, repo oci.Repository, name string, told func() [][]byte, decode func(body []byte) replicator.Decoded) {
	t.Helper()
	before := len(told())
	m := PushImage(t, repo, "v1", nil)
	index := Index(m.Descriptor())
	if _, err := repo.PushManifest(t.Context(), index.Digest.String(), index); err != nil {
		t.Fatal(err)
	}
	lacking := Index(Describe(m.MediaType, []byte("nowhere")))
	if _, err := repo.PushManifest(t.Context(), "v2", lacking); err == nil {
		t.Fatal("an index without its child is taken")
	}
	want := []replicator.Event{{Repository: name, Tag: "v1", Digest: m.Digest}, {Repository: name, Digest: index.Digest}}
	events := told()[before:]
	if len(events) != len(want) {
		t.Fatalf("%d events, want one a push: %s", len(events), events)
	}
	for i, want := range want {
		d := decode(events[i])
		if len(d.Events) != 1 {
			t.Fatalf("%s is read as %+v", events[i], d)
		}
		got := d.Events[0]
		if got.Action != replicator.Push || got.Repository != want.Repository || got.Tag != want.Tag || got.Digest != want.Digest {
			t.Errorf("%s is read as %+v, want %+v", events[i], got, want)
		}
	}
}
