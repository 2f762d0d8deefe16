package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func planOf(t *testing.T, actions ...Action) *Plan {
	t.Helper()
	p := NewPlan(t.TempDir())
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, a := range actions {
		if err := p.Add(a); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func actionsOf(t *testing.T, p *Plan) (list []Action) {
	t.Helper()
	if err := p.Each(func(a Action) error { list = append(list, a); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// Whatever a plan's size, its actions come sorted, and what is written is what
// is read, in the shape every other answer has.
func TestAPlanOfAnySize(t *testing.T) {
	for _, n := range []int{0, 1, plannedInMemory - 1, plannedInMemory, plannedInMemory + 1, 5*plannedInMemory + 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			actions := make([]Action, n)
			for i := range actions {
				actions[i] = Action{
					Route: fmt.Sprint("r", i%2), Destination: fmt.Sprint("d", i%3), Repository: fmt.Sprint("team/app", i%5), Tag: fmt.Sprint("v<", i),
					Action: []string{"copy", "skip"}[i%2], Reason: "missing", Bytes: int64(i),
				}
				if i%2 == 0 {
					actions[i].Digest = text("sha256:a")
				}
			}
			shuffled := slices.Clone(actions)
			rand.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			p := planOf(t, shuffled...)
			p.Requests = 7
			if (n >= plannedInMemory) != (p.file != nil) {
				t.Errorf("a file: %t", p.file != nil)
			}
			slices.SortFunc(actions, compareActions)
			got := actionsOf(t, p)
			if diff := cmp.Diff(append([]Action(nil), actions...), got); diff != "" {
				t.Fatal(diff)
			}
			var written bytes.Buffer
			if err := p.WriteJSON(&written); err != nil {
				t.Fatal(err)
			}
			if got == nil {
				got = []Action{}
			}
			want, err := json.MarshalIndent(struct {
				Actions  []Action `json:"actions"`
				Requests int64    `json:"requests"`
			}{got, 7}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if written.String() != string(want)+"\n" {
				t.Fatalf("written otherwise than other answers:\n%.400s", written.String())
			}
			back, err := ReadPlan(&written, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			if diff := cmp.Diff(actions, append([]Action{}, actionsOf(t, back)...)); diff != "" || back.Requests != 7 || back.Empty() != p.Empty() {
				t.Errorf("read back, %d requests: %s", back.Requests, diff)
			}
		})
	}
}

func TestWhatIsNoPlan(t *testing.T) {
	for _, body := range []string{"", "[]", "{", `{"actions":{}}`, `{"actions":[{"bytes":"x"}]}`, `{"actions":[]`, `{"requests":"many"}`} {
		if p, err := ReadPlan(strings.NewReader(body), t.TempDir()); err == nil {
			t.Errorf("%s is %+v", body, p)
		}
	}
	p, err := ReadPlan(strings.NewReader(`{"new":{"a":[1]},"requests":3,"actions":[{"action":"copy"}]}`), t.TempDir())
	if err != nil || p.Requests != 3 || p.Empty() {
		t.Errorf("%+v, %v", p, err)
	}
	full := planOf(t, Action{Action: "copy"})
	stop := errors.New("stop")
	if err := full.Each(func(Action) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := NewPlan("/nowhere/at/all").spill(); err == nil {
		t.Error("spilled to a directory that is not there")
	}
}
