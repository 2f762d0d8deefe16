package daemon

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/replicator/oci"
)

// makers is a registry some of whose repositories a push would make.
type makers struct {
	oci.Registry
	would map[string]error // nil: it would
	asked int
}

func (m *makers) Repository(name string) oci.Repository { return &maker{makers: m, name: name} }

type maker struct {
	oci.Repository
	*makers
	name string
}

func (m *maker) WouldCreate(context.Context) (bool, error) {
	m.asked++
	err, known := m.would[m.name]
	return known && err == nil, err
}

func TestPlanTellsOfRepositoriesToBeMade(t *testing.T) {
	down := errors.New("no answer")
	reg := &makers{would: map[string]error{"dr/new": nil, "dr/a--b": oci.ErrRefused, "dr/down": down}}
	st := &State{Registries: map[string]*Registry{"us": {Client: reg}}}
	var got []Action
	var c creations
	tell := func(name string) error {
		return c.tell(t.Context(), st, Action{Route: "prod", Destination: "us", Repository: "app", DestinationRepository: name, Tag: "v1", Action: "copy"},
			func(a Action) { got = append(got, a) })
	}
	for _, name := range []string{"dr/new", "dr/new", "dr/there", "dr/a--b"} {
		if err := tell(name); err != nil {
			t.Error(err)
		}
	}
	if err := tell("dr/down"); !errors.Is(err, down) {
		t.Errorf("a registry that does not answer: %v", err)
	}
	want := []Action{
		{Route: "prod", Destination: "us", Repository: "app", DestinationRepository: "dr/new", Action: "create", Reason: "the destination lacks the repository"},
		{Route: "prod", Destination: "us", Repository: "app", DestinationRepository: "dr/a--b", Action: "refuse", Reason: "refused"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if reg.asked != 4 {
		t.Errorf("asked %d times, want once for each repository", reg.asked)
	}
}
