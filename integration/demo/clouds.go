package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinport/twinport/integration/clouds"
	"github.com/twinport/twinport/integration/harness"
)

// fakes are the clouds of the demo, by their names in the config.
var fakes = []string{clouds.ECR, clouds.ACR, clouds.GCR}

// A sky is what the demo with clouds built: a distribution registry, eu, and a
// fake of each cloud before a registry of its own.
type sky struct {
	*world
	clouds *clouds.Clouds
}

func showClouds(s *harness.Stage, once bool) {
	start := time.Now()
	s.Say("Building and starting a registry, fakes of ECR, ACR and Artifact Registry, and twinport (the first time takes minutes: the registry is built from source) …")
	w := buildClouds(s)
	s.Say("")
	s.Say("  registry eu   http://%s", w.registries["eu"].Addr)
	for _, name := range fakes {
		s.Say("  fake %s      http://%s  (its content is in a registry behind it)", name, w.clouds.Addr[name])
	}
	s.Say("  admin         %s  (/metrics, /api/v1/status)", w.daemon.Admin())
	s.Say("  config        %s", w.daemon.ConfigPath())
	s.Say("")
	s.Say("The routes: what is pushed to eu goes to all clouds; what is pushed to ecr below aws/ goes to eu and the other clouds.")
	s.Say("")
	goods := makeGoods()
	for _, g := range goods {
		s.Say("push  eu/%s:%s  %s", g.repository, g.tag, g.what)
		w.spread(s, g, "prod", "eu", w.registries["eu"].Client())
	}
	login := harness.NewClient(w.clouds.Addr[clouds.ECR])
	login.Username, login.Password = w.clouds.Login(s, clouds.ECR)
	aws := goods[:2:2]
	for i := range aws {
		aws[i].repository = "aws/" + aws[i].repository
		w.clouds.MakeRepository(aws[i].repository)
		s.Say("push  ecr/%s:%s  %s, told by EventBridge", aws[i].repository, aws[i].tag, aws[i].what)
		w.spread(s, aws[i], "aws", clouds.ECR, login)
	}
	for _, route := range w.daemon.Config.Routes {
		for _, to := range route.To {
			w.daemon.WaitStatus(route.Name, to, "RPO met", 60*time.Second, func(r harness.RouteStatus) bool {
				return r.Settled() && r.State == "met"
			})
		}
	}
	s.Say("")
	s.Say("$ twinport status")
	s.Say("%s", w.daemon.Command("status").Stdout)
	for _, args := range [][]string{{"status"}, {"verify", "--deep"}, {"plan", "--exit-code"}} {
		if r := w.daemon.Command(args...); r.Code != 0 {
			s.Fatalf("twinport %s ended with %d:\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
	}
	if w.clouds.Hooks[clouds.ECR].Posted() == 0 {
		s.Fatalf("no event of EventBridge was taken")
	}
	s.Say("Everything is byte-identical everywhere, and twinport's status says so. (%.1f s)", time.Since(start).Seconds())
	if !once {
		watch(s, w.world)
	}
}

func buildClouds(s *harness.Stage) *sky {
	for _, name := range []string{harness.Registry, harness.Twinport} {
		if _, err := harness.Binary(name); err != nil {
			s.Fatalf("%v", err)
		}
	}
	w := &sky{world: &world{registries: make(map[string]*harness.Dist), daemon: harness.NewDaemon(s, harness.Config{})}}
	o := clouds.Options{Upstream: make(map[string]string)}
	for _, name := range fakes {
		w.registries[name] = harness.StartRegistry(s, name, harness.RegistryOptions{})
		o.Upstream[name] = w.registries[name].Addr
	}
	w.registries["eu"] = harness.StartRegistry(s, "eu", harness.RegistryOptions{Notify: []harness.Endpoint{w.daemon.Endpoint("eu")}})
	w.clouds = clouds.Start(s, o)
	w.daemon.Env = w.clouds.Env
	w.daemon.Config.Registries = append([]harness.RegistryConfig{{Name: "eu", Addr: w.registries["eu"].Addr}}, w.clouds.Registries()...)
	lines := []string{"rpo: 30s", "sweep: 15s", "owner: platform-team", `contact: "#platform-oncall"`}
	w.daemon.Config.Routes = []harness.RouteConfig{
		{Name: "prod", From: "eu", To: fakes, Lines: append(lines, `repositories: {exclude: ["aws/**"]}`)},
		{Name: "aws", From: clouds.ECR, To: []string{"eu", clouds.ACR, clouds.GCR}, Lines: append(lines, `repositories: {include: ["aws/**"]}`)},
	}
	w.clouds.Post(clouds.ECR, "http://"+w.daemon.Listen)
	w.daemon.WriteConfig()
	w.daemon.Start()
	return w
}

// spread pushes a good to a registry and waits until it is whole, and proven,
// wherever the route leads.
func (w *sky) spread(s *harness.Stage, g good, route, from string, at *harness.Client) {
	start := time.Now()
	if err := g.put(s.Context(), at); err != nil {
		s.Fatalf("push: %v", err)
	}
	var to []string
	for _, r := range w.daemon.Config.Routes {
		if r.Name == route {
			to = r.To
		}
	}
	lines := make([]string, len(to))
	err := harness.Each(s.Context(), len(to), func(ctx context.Context, i int) error {
		there := g
		if to[i] == clouds.GCR {
			there.repository = clouds.Project + "/" + clouds.Repository + "/" + g.repository
		}
		err := harness.Poll(ctx, 60*time.Second, func(ctx context.Context) error {
			return there.at(ctx, w.registries[to[i]].Client(), false)
		})
		if err == nil {
			err = there.at(ctx, w.registries[to[i]].Client(), true)
		}
		if err != nil {
			return fmt.Errorf("%s:%s of %s did not arrive in %s: %w", g.repository, g.tag, from, to[i], err)
		}
		lines[i] = fmt.Sprintf("      %s/%s:%s  %s  whole after %.2f s", to[i], g.repository, g.tag, g.root.Digest[:19], time.Since(start).Seconds())
		return nil
	})
	if err != nil {
		s.Fatalf("%v", err)
	}
	for _, line := range lines {
		s.Say("%s", line)
	}
}
