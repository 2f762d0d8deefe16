package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// P1, P3, P4: the network swallows everything between the daemon and the
// source, the destination or both, from the middle of a copy on, whose request
// arrives and whose answer does not. Webhooks are accepted all the time, lag is
// told, and when the network is back all is proven, in the order of pushes.
func TestPartitionsHealByThemselves(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string][]string{"source": {"eu"}, "destination": {"us"}, "both": {"eu", "us"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{silent: true, wires: true})
			pid := w.Process().PID()
			pushes := make([]*harness.Graph, 4)
			for i := range pushes {
				pushes[i] = w.content.Image(harness.ImageSpec{Layers: 2})
			}
			watch := harness.WatchTag(t, w.us, "team/app", "prod", func(ctx context.Context, d digest.Digest) error {
				i := slices.IndexFunc(pushes, func(g *harness.Graph) bool { return g.Digest == d })
				if i < 0 {
					return errors.New("nobody pushed it")
				}
				return w.us.Has(ctx, "team/app", "", pushes[i], true)
			})
			push := func(i int) {
				t.Helper()
				w.push("team/app", pushes[i], "prod")
				w.postPush("team/app", "prod", pushes[i])
			}
			push(0)
			harness.WaitHas(t, w.us, "team/app", "prod", pushes[0], soon)
			uploading, goOn := w.held("us", harness.Is(http.MethodPut, harness.Upload))
			push(1)
			<-uploading
			for _, at := range cut {
				w.wire[at].Cut()
			}
			goOn()
			push(2)
			push(3)
			w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool {
				return r.Waiting+r.Running > 0 && r.Lag != nil && *r.Lag > 0
			})
			w.isReady()
			for _, at := range cut {
				w.wire[at].Mend()
			}
			healed := time.Now()
			harness.WaitHas(t, w.us, "team/app", "prod", pushes[3], soon)
			w.WaitSettled(soon)
			t.Logf("proven %s after the network was back", time.Since(healed))
			states, err := watch.Stop()
			if err := errors.Join(err, harness.InOrder(states, pushes)); err != nil {
				t.Error(err)
			}
			w.unharmed(pid)
			w.noFindings()
		})
	}
}

// P4, P8: requests arrive and their answers are lost: of what is asked again,
// all arrives whole, and the tag never goes back.
func TestAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	w := start(t, setup{silent: true})
	pid := w.Process().PID()
	cases := []struct {
		name, at string
		match    func(harness.Request) bool
	}{
		{"to the beginning of an upload", "us", harness.Is(http.MethodPost, harness.Upload)},
		{"to a blob's PUT", "us", harness.Is(http.MethodPut, harness.Upload)},
		{"to a child's PUT", "us", harness.Is(http.MethodPut, harness.Manifest)},
		{"to the tag's PUT", "us", harness.Is(http.MethodPut, harness.Tag)},
		{"to the proof's questions", "us", harness.Is(http.MethodHead)},
		{"to the source's manifests", "eu", harness.Is(http.MethodGet, harness.Manifest, harness.Tag)},
		{"to the source's blobs", "eu", harness.Is(http.MethodGet, harness.BlobOp)},
	}
	t.Run("answers", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				repository := fmt.Sprint("team/lost", i)
				content := harness.NewGenerator(seedOf(t.Name()))
				pushes := []*harness.Graph{content.MultiArch(harness.ImageSpec{}, "amd64", "arm64"), content.MultiArch(harness.ImageSpec{}, "amd64", "arm64")}
				w.proxy[c.at].Inject(harness.Fault{Times: 3, Lose: true, Match: func(r harness.Request) bool {
					return r.Repository == repository && c.match(r)
				}})
				watch := harness.WatchTag(t, w.us, repository, "v1", func(ctx context.Context, d digest.Digest) error {
					if d == pushes[0].Digest {
						return w.us.Has(ctx, repository, "", pushes[0], true)
					}
					return w.us.Has(ctx, repository, "", pushes[1], true)
				})
				for _, g := range pushes {
					if err := w.eu.Push(t.Context(), repository, g, "v1"); err != nil {
						t.Fatal(err)
					}
					body := harness.PushEvent(w.reg["eu"].Addr, repository, "v1", g, time.Now())
					if code, answer := w.Post(t.Context(), "eu", body); code != http.StatusAccepted {
						t.Fatalf("webhook: %d %s", code, answer)
					}
					harness.WaitHas(t, w.us, repository, "v1", g, soon)
				}
				states, err := watch.Stop()
				if err := errors.Join(err, harness.InOrder(states, pushes)); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if us, eu := w.proxy["us"].Taken(), w.proxy["eu"].Taken(); us < 10 || eu < 4 {
		t.Errorf("answers were lost %d and %d times", us, eu)
	}
	w.WaitSettled(soon)
	w.unharmed(pid)
	w.noFindings()
}

// P4: a registry is killed and started again in the middle of a great blob and
// of other images: all arrives whole.
func TestARegistryRestartsInTheMiddleOfACopy(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"us", "eu"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{silent: true})
			pid := w.Process().PID()
			images := map[string]*harness.Graph{"big": w.content.ImageOf(w.content.BigBlob(24 << 20))}
			for i := range 4 {
				images[fmt.Sprint("v", i)] = w.content.Image(harness.ImageSpec{Layers: 3})
			}
			for tag, g := range images {
				w.push("team/app", g, tag)
			}
			big := images["big"].Blobs[1].Digest.Encoded()
			goOn := w.proxy["us"].Inject(harness.Fault{Times: 1, Stall: 4 << 20, Match: func(r harness.Request) bool {
				return r.Class == harness.Upload && strings.Contains(r.Query.Get("digest"), big)
			}})
			for tag, g := range images {
				w.postPush("team/app", tag, g)
			}
			harness.WaitFor(t, "the great blob to be on its way", soon, func(context.Context) error {
				if w.proxy["us"].Taken() == 0 {
					return errors.New("it is not")
				}
				return nil
			})
			w.reg[at].Stop()
			goOn()
			w.reg[at].Start()
			back := time.Now()
			for tag, g := range images {
				harness.WaitHas(t, w.us, "team/app", tag, g, soon)
			}
			w.WaitSettled(soon)
			t.Logf("proven %s after it was back", time.Since(back))
			w.unharmed(pid)
			w.noFindings()
		})
	}
}

// One of three replicas is cut off from the database in the middle of a copy,
// and goes on: its jobs are somebody else's within 15 s, what it would write is
// fenced, and it is a replica again when the database is back.
func TestAReplicaCutOffFromTheDatabase(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{silent: true}, 2)
	wire := harness.StartWire(t, c.postgres.Addr)
	config := c.Config
	config.Lines = slices.Clone(config.Lines)
	for i, line := range config.Lines {
		if strings.HasPrefix(line, "database:") {
			config.Lines[i] = "database: " + c.postgres.URL(wire.Addr)
		}
	}
	lost := harness.NewDaemon(t, config)
	lost.Race = c.Race
	lost.Start()
	c.replicas = append(c.replicas, lost)
	name := c.name(lost)

	goOn := c.proxy["us"].Inject(harness.Fault{Hold: true, Match: harness.Is(http.MethodPut, harness.Upload)})
	var images []*harness.Graph
	runs := ""
	harness.WaitFor(t, "it to run a job", soon, func(context.Context) error {
		tag := fmt.Sprint("v", len(images))
		g := c.content.Image(harness.ImageSpec{})
		images = append(images, g)
		c.push("team/app", g, tag)
		c.tell(lost, "team/app", tag, g)
		if runs = c.ask("SELECT tag FROM jobs WHERE state = 1 AND replica = '" + name + "' LIMIT 1"); runs == "" {
			return errors.New("others were faster")
		}
		return nil
	})
	wire.Cut()
	cut := time.Now()
	harness.WaitFor(t, "its jobs to be others'", 2*time.Minute, func(context.Context) error {
		if left := c.ask("SELECT COUNT(*) FROM jobs WHERE state = 1 AND replica = '" + name + "'"); left != "0" {
			return fmt.Errorf("%s are still its own", left)
		}
		return nil
	})
	took := time.Since(cut)
	t.Logf("its jobs were others' after %s", took)
	if took > 2*takeover {
		t.Errorf("its jobs were others' after %s, over %s", took, takeover)
	}
	goOn()
	for i, g := range images {
		harness.WaitHas(t, c.us, "team/app", fmt.Sprint("v", i), g, soon)
	}
	// Another push of the tag it was about to move: it may not take it back.
	newer := c.content.Image(harness.ImageSpec{})
	c.push("team/app", newer, runs)
	c.tell(c.replicas[0], "team/app", runs, newer)
	harness.WaitHas(t, c.us, "team/app", runs, newer, soon)
	if code, answer := lost.Post(t.Context(), "eu", harness.PushEvent(c.reg["eu"].Addr, "team/app", "refused", newer, time.Now())); code != http.StatusServiceUnavailable {
		t.Errorf("a webhook to who is cut off: %d %s", code, answer)
	}
	if err := lost.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "database") {
		t.Errorf("ready without the database: %v", err)
	}
	wire.Mend()
	harness.WaitFor(t, "it to be a replica again", soon, func(ctx context.Context) error {
		if !strings.Contains(lost.Log(), "the lease was lost") {
			return errors.New("it does not know that its lease is lost")
		}
		return lost.Ready(ctx)
	})
	c.settled()
	if d, err := c.us.Digest(t.Context(), "team/app", runs); err != nil || d != newer.Digest {
		t.Errorf("%s names %s, want %s: %v", runs, d, newer.Digest, err)
	}
	again := c.content.Image(harness.ImageSpec{})
	c.push("team/app", again, "again")
	c.tell(lost, "team/app", "again", again)
	harness.WaitHas(t, c.us, "team/app", "again", again, soon)
	if !lost.Process().Alive() {
		t.Error("it has ended")
	}
	c.noFindings("regressed")
}
