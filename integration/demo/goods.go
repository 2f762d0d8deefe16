package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// A good is an image the demo pushes, with what belongs to it.
type good struct {
	repository, tag string
	what            string
	root            *harness.Graph
	signature       *harness.Graph   // under cosign's tag
	referrers       []*harness.Graph // with a subject, listed in the fallback tag
}

func makeGoods() []good {
	g := harness.NewGenerator(uint64(time.Now().UnixNano()))
	spec := harness.ImageSpec{Shared: []int{1, 2}, Layers: 2, LayerSize: 1 << 20}
	api := g.MultiArch(spec, "amd64", "arm64", "s390x")
	web := g.MultiArch(spec, "amd64", "arm64")
	spec.Docker = true
	legacy := g.MultiArch(spec, "amd64", "arm64")
	return []good{
		{
			repository: "team/api", tag: "v1.4.0", what: "OCI index, 3 platforms, cosign signature, SBOM", root: api,
			signature: g.Signature(api), referrers: []*harness.Graph{g.Artifact("application/spdx+json", api, nil)},
		},
		{
			repository: "team/web", tag: "v2.0.1", what: "OCI index, 2 platforms, signature as referrer", root: web,
			referrers: []*harness.Graph{g.Artifact("application/vnd.dev.sigstore.bundle.v0.3+json", web, nil)},
		},
		{repository: "team/legacy", tag: "2019-06", what: "Docker manifest list, 2 platforms, cosign signature", root: legacy, signature: g.Signature(legacy)},
		{repository: "charts/shop", tag: "0.3.0", what: "Helm chart", root: g.Artifact("application/vnd.cncf.helm.config.v1+json", nil, nil)},
		{repository: "team/api", tag: "prod", what: "a second tag of team/api:v1.4.0", root: api},
	}
}

// put pushes a good as a build pipeline does: the image by digest, what
// belongs to it, then its tag.
func (g good) put(ctx context.Context, c *harness.Client) error {
	if err := c.Push(ctx, g.repository, g.root); err != nil {
		return err
	}
	if g.signature != nil {
		if err := c.Push(ctx, g.repository, g.signature, harness.SignatureTag(g.root)); err != nil {
			return err
		}
	}
	for _, r := range g.referrers {
		if err := c.PushReferrer(ctx, g.repository, r); err != nil {
			return err
		}
	}
	return c.PutManifest(ctx, g.repository, g.tag, g.root)
}

// at checks that a registry holds the good with all that belongs to it.
func (g good) at(ctx context.Context, c *harness.Client, deep bool) error {
	if err := c.Has(ctx, g.repository, g.tag, g.root, deep); err != nil {
		return err
	}
	if g.signature != nil {
		if err := c.Has(ctx, g.repository, harness.SignatureTag(g.root), g.signature, deep); err != nil {
			return err
		}
	}
	for _, r := range g.referrers {
		if err := c.Has(ctx, g.repository, "", r, deep); err != nil {
			return err
		}
		listed, _, err := c.Manifest(ctx, g.repository, harness.FallbackTag(g.root))
		if err != nil {
			return err
		}
		if !strings.Contains(string(listed), r.Digest.String()) {
			return fmt.Errorf("%s/%s: referrer %s is not listed", c.Addr, g.repository, r.Digest)
		}
	}
	return nil
}

func (w *world) push(s *harness.Stage) {
	w.goods = makeGoods()
	for _, g := range w.goods {
		s.Say("push  eu/%s:%s  %s", g.repository, g.tag, g.what)
		if err := g.put(s.Context(), w.registries["eu"].Client()); err != nil {
			s.Fatalf("push: %v", err)
		}
		start := time.Now()
		lines := make([]string, len(regions)-1)
		err := harness.Each(s.Context(), len(lines), func(ctx context.Context, i int) error {
			var err error
			lines[i], err = w.follow(ctx, g, regions[i+1], start)
			return err
		})
		if err != nil {
			s.Fatalf("%v", err)
		}
		for _, line := range lines {
			s.Say("%s", line)
		}
	}
}

// follow waits until a region holds the good, and until twinport has proven it there.
func (w *world) follow(ctx context.Context, g good, region string, start time.Time) (string, error) {
	err := harness.Poll(ctx, 30*time.Second, func(ctx context.Context) error {
		return g.at(ctx, w.registries[region].Client(), false)
	})
	if err != nil {
		return "", fmt.Errorf("%s:%s did not arrive in %s: %w", g.repository, g.tag, region, err)
	}
	arrived := time.Since(start)
	var line harness.RouteStatus
	err = harness.Poll(ctx, 30*time.Second, func(ctx context.Context) error {
		status, err := w.daemon.Status(ctx)
		if err != nil {
			return err
		}
		if line, err = status.Route("prod", region); err != nil {
			return err
		}
		if !line.Settled() {
			return fmt.Errorf("status is %s", line)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("%s:%s is not proven in %s: %w", g.repository, g.tag, region, err)
	}
	return fmt.Sprintf("      %s/%s:%s  %s  visible after %.2f s, proven after %.2f s, lag %s",
		region, g.repository, g.tag, g.root.Digest[:19], arrived.Seconds(), time.Since(start).Seconds(), seconds(line.Lag)), nil
}

// settle waits until both regions keep their RPO.
func (w *world) settle(s *harness.Stage) {
	for _, name := range regions[1:] {
		w.daemon.WaitStatus("prod", name, "RPO met", 45*time.Second, func(r harness.RouteStatus) bool {
			return r.Settled() && r.State == "met"
		})
	}
}

// check compares every byte, past twinport, and asks twinport's own commands.
func (w *world) check(s *harness.Stage) {
	for _, name := range regions[1:] {
		for _, g := range w.goods {
			if err := g.at(s.Context(), w.registries[name].Client(), true); err != nil {
				s.Fatalf("check: %v", err)
			}
		}
	}
	for _, args := range [][]string{{"status"}, {"verify", "--deep"}, {"plan", "--exit-code"}} {
		if r := w.daemon.Command(args...); r.Code != 0 {
			s.Fatalf("twinport %s ended with %d:\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
	}
}
