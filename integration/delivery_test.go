package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/integration/harness"
)

// P4, P5: 200 images of every kind, pushed at once with the registry's own
// notifications and no sweep, end byte-identical at two destinations.
func TestEveryKindOfPushArrivesByteIdentical(t *testing.T) {
	t.Parallel()
	w := start(t, setup{
		to: []string{"us", "ap"}, route: []string{"sweep: never", "untagged: copy"},
		source: harness.RegistryOptions{},
	})
	type pushed struct {
		repository, tag, again string
		root                   *harness.Graph
		attached               *attached
	}
	var all []pushed
	for i := range scaled(200, 60) {
		p := pushed{repository: fmt.Sprintf("team/app%d", i%20), tag: fmt.Sprintf("v%d", i)}
		spec := harness.ImageSpec{Shared: []int{i % 5}, Layers: 1 + i%2, Docker: i%3 == 0}
		switch i % 8 {
		case 0, 1:
			p.root = w.content.Image(spec)
		case 2:
			p.root = w.content.MultiArch(spec, "amd64", "arm64")
		case 3:
			p.root = w.content.Image(spec)
			p.tag = "" // by digest alone
		case 4:
			p.root = w.content.Image(spec)
			p.again = p.tag + "-again"
		case 5:
			p.root = w.content.Index(w.content.MultiArch(harness.ImageSpec{}, "amd64", "arm64"), w.content.Image(harness.ImageSpec{}))
		case 6:
			a := w.signed(2, harness.ImageSpec{Shared: []int{1}})
			p.root, p.attached = a.root, &a
		case 7:
			p.root = w.content.Artifact("application/vnd.cncf.helm.config.v1+json", nil, map[string]string{"n": p.tag})
		}
		all = append(all, p)
	}
	began := time.Now()
	err := harness.Each(t.Context(), len(all), func(ctx context.Context, i int) error {
		p := all[i]
		if p.attached != nil {
			if err := p.attached.pushUntagged(ctx, w.eu, p.repository); err != nil {
				return err
			}
		}
		if p.tag == "" {
			return w.eu.Push(ctx, p.repository, p.root)
		}
		if p.again != "" {
			return w.eu.Push(ctx, p.repository, p.root, p.tag, p.again)
		}
		return w.eu.Push(ctx, p.repository, p.root, p.tag)
	})
	if err != nil {
		t.Fatalf("push: %v", err)
	}
	t.Logf("pushed %d images in %s", len(all), time.Since(began))
	for _, name := range []string{"us", "ap"} {
		c := w.reg[name].Client()
		harness.WaitForEach(t, "everything in "+name, 4*time.Minute, len(all), func(ctx context.Context, i int) error {
			if all[i].tag == "" {
				_, _, err := c.Manifest(ctx, all[i].repository, all[i].root.Digest.String())
				return err
			}
			_, err := c.Digest(ctx, all[i].repository, all[i].tag)
			if err == nil && all[i].again != "" { // a push of its own
				_, err = c.Digest(ctx, all[i].repository, all[i].again)
			}
			return err
		})
	}
	w.WaitSettled(2 * time.Minute)
	t.Logf("all proven after %s", time.Since(began))
	for _, name := range []string{"us", "ap"} {
		c := w.reg[name].Client()
		err := harness.Each(t.Context(), len(all), func(ctx context.Context, i int) error {
			p := all[i]
			if err := c.Has(ctx, p.repository, p.tag, p.root, true); err != nil {
				return err
			}
			if p.again != "" {
				if d, err := c.Digest(ctx, p.repository, p.again); err != nil || d != p.root.Digest {
					return fmt.Errorf("%s:%s is %q, want %s: %w", p.repository, p.again, d, p.root.Digest, errors.Join(err, errOtherDigest))
				}
			}
			if p.attached != nil {
				if err := p.attached.belongings(ctx, c, p.repository); err != nil {
					return err
				}
			}
			if p.tag == "" || i%8 == 7 || i >= 40 { // an artifact's layer is no file system; five of each kind are enough
				return nil
			}
			return pull(ctx, c.Addr, p.repository, p.tag)
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range 20 {
			if err := w.sameTags(t.Context(), fmt.Sprintf("team/app%d", i), name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	w.noFindings()
}

// P5: what few registries hold is carried unchanged where the destination
// takes it, and named where it does not.
func TestRareContentIsCarriedUnchangedOrRefusedWithAReason(t *testing.T) {
	t.Parallel()
	w := build(t, setup{source: harness.RegistryOptions{ForeignLayers: true}})
	w.reg["us"].Options().ForeignLayers = true
	w.reg["us"].Stop()
	w.reg["us"].Start()
	w.Start()
	long := w.signed(1, harness.ImageSpec{SHA512: true})
	foreign := w.content.Image(harness.ImageSpec{Docker: true, Foreign: true})
	w.push("team/rare", long.root, "sha512")
	w.push("team/rare", foreign, "foreign")
	harness.WaitHas(t, w.us, "team/rare", "sha512", long.root, soon)
	harness.WaitHas(t, w.us, "team/rare", "foreign", foreign, soon)
	w.WaitSettled(soon)
	w.WaitFinding(soon, "team/rare", "", "foreign-layer")
	w.noFindings("foreign-layer")

	// Registries refuse foreign layers by default (distribution with a 500):
	// named, counted as behind, and never visible.
	w.reg["us"].Options().ForeignLayers = false
	w.reg["us"].Stop()
	w.reg["us"].Start()
	refused := w.content.Image(harness.ImageSpec{Docker: true, Foreign: true})
	w.push("team/rare", refused, "refused")
	harness.WaitFor(t, "a job with the refusal", soon, func(ctx context.Context) error {
		jobs, err := w.Jobs(ctx, "")
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Tag == "refused" && j.Error != nil && j.Attempts > 0 {
				return nil
			}
		}
		return fmt.Errorf("jobs are %+v", jobs)
	})
	w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool { return r.Lag != nil && *r.Lag > 0 && r.Proven == 2 })
	if err := absent(t.Context(), w.us, "team/rare", "refused"); err != nil {
		t.Error(err)
	}
}

// A tag deleted at the source stays at the destination by default.
func TestDeletionAtTheSourceIsNotCarriedOver(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 1s"}})
	kept, gone := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
	w.push("team/app", kept, "kept")
	w.push("team/app", gone, "gone")
	harness.WaitHas(t, w.us, "team/app", "gone", gone, soon)
	harness.WaitHas(t, w.us, "team/app", "kept", kept, soon)
	if err := w.eu.Delete(t.Context(), "team/app", "gone"); err != nil {
		t.Fatal(err)
	}
	later := w.content.Image(harness.ImageSpec{})
	w.push("team/app", later, "later")
	harness.WaitHas(t, w.us, "team/app", "later", later, soon)
	before := time.Now()
	w.WaitStatus("prod", "us", "a sweep after the deletion", soon, func(r harness.RouteStatus) bool {
		return r.Settled() && r.LastSweep != nil && r.LastSweep.After(before)
	})
	if err := w.us.Has(t.Context(), "team/app", "gone", gone, true); err != nil {
		t.Errorf("deleted at the destination too: %v", err)
	}
}

// Registries with passwords, and a wrong one that never leads to a green status.
func TestPasswordsAreUsedAndNeverShown(t *testing.T) {
	t.Parallel()
	const password = "integration-pass-7431"
	w := start(t, setup{source: harness.RegistryOptions{Username: "robot", Password: password}})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	for _, secret := range []string{password, harness.Secret("eu")} {
		if strings.Contains(w.Log(), secret) {
			t.Errorf("the log shows %q", secret)
		}
		for _, args := range [][]string{{"status", "--output", "json"}, {"jobs", "list", "--output", "json"}, {"validate"}} {
			if r := w.Command(args...); strings.Contains(r.Stdout+r.Stderr, secret) {
				t.Errorf("%v shows %q", args, secret)
			}
		}
	}
}

// Filters and rename hold for webhooks and for the sweep alike: nothing else is
// written at the destination.
func TestOnlyWhatTheRouteNamesArrivesUnderItsNewName(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"by webhook": false, "by sweep": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := build(t, setup{silent: silent, route: []string{
				"sweep: " + map[bool]string{true: "1s", false: "never"}[silent],
				`repositories: {include: ["team/**"], exclude: ["team/scratch/**"]}`,
				`tags: {include: ["v*", "*-rc"], exclude: ["*-dev"], semver: ">=1.2"}`,
				`rename: "dr/{repository}"`,
			}})
			img := w.content.Image(harness.ImageSpec{})
			w.Start()
			for _, place := range [][2]string{
				{"other/app", "v1.3.0"}, {"team/scratch/app", "v1.3.0"}, {"team/app", "v1.1.0"}, {"team/app", "v1.3.0-dev"}, {"team/app", "latest"},
				{"team/app", "v1.3.0"}, {"team/deep/er/app", "v2.0.0"},
			} {
				w.push(place[0], img, place[1])
			}
			harness.WaitHas(t, w.us, "dr/team/app", "v1.3.0", img, soon)
			harness.WaitHas(t, w.us, "dr/team/deep/er/app", "v2.0.0", img, soon)
			w.WaitSettled(soon)
			all, err := w.us.Repositories(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"dr/team/app", "dr/team/deep/er/app"}, all); diff != "" {
				t.Errorf("repositories: %s", diff)
			}
			if tags, err := w.us.Tags(t.Context(), "dr/team/app"); err != nil || len(tags) != 1 {
				t.Errorf("tags are %v, %v", tags, err)
			}
			w.noFindings("slow-sweep") // of a second, on a busy machine
		})
	}
}

var errOtherDigest = errors.New("not what was pushed")
