// Command demo shows twinport at work on one machine: three real registries
// stand for three regions, a push to the first arrives proven in the others.
//
//	go -C integration run ./demo          # goes on running until Ctrl-C
//	go -C integration run ./demo -once    # checks the result, ends with 0 or 1
//	go -C integration run ./demo -clouds  # fakes of ECR, ACR and Artifact Registry
//
// Everything listens on loopback and is gone when the demo ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

func main() {
	once := flag.Bool("once", os.Getenv("ONCE") != "", "check the result and end with 0 or 1 (or set ONCE)")
	sky := flag.Bool("clouds", os.Getenv("CLOUDS") != "", "fakes of ECR, ACR and Artifact Registry instead of regions (or set CLOUDS)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s := harness.NewStage(ctx, "demo")
	code := s.Run(func() {
		if *sky {
			showClouds(s, *once)
			return
		}
		show(s, *once)
	})
	stop()
	os.Exit(code)
}

// regions are the registries, the first of which takes the pushes.
var regions = []string{"eu", "us", "ap"}

// A world is what the demo built.
type world struct {
	registries map[string]*harness.Dist
	daemon     *harness.Daemon
	goods      []good
}

func show(s *harness.Stage, once bool) {
	start := time.Now()
	s.Say("Building and starting three registries and twinport (the first time takes minutes: the registry is built from source) …")
	w := build(s)
	s.Say("")
	for _, name := range regions {
		s.Say("  registry %-3s http://%s", name, w.registries[name].Addr)
	}
	s.Say("  webhooks     http://%s/hooks/eu", w.daemon.Listen)
	s.Say("  admin        %s  (/metrics, /api/v1/status)", w.daemon.Admin())
	s.Say("  config       %s", w.daemon.ConfigPath())
	s.Say("")
	s.Say("The route: everything pushed to eu goes to us and ap, within 30 s (its RPO).")
	s.Say("")
	w.push(s)
	w.settle(s)
	s.Say("")
	s.Say("$ twinport status")
	s.Say("%s", w.daemon.Command("status").Stdout)
	w.check(s)
	s.Say("Everything is byte-identical in us and ap, and twinport's status says so. (%.1f s)", time.Since(start).Seconds())
	if once {
		return
	}
	watch(s, w)
}

func build(s *harness.Stage) *world {
	for _, name := range []string{harness.Registry, harness.Twinport} {
		if _, err := harness.Binary(name); err != nil {
			s.Fatalf("%v", err)
		}
	}
	w := &world{registries: make(map[string]*harness.Dist), daemon: harness.NewDaemon(s, harness.Config{})}
	config := &w.daemon.Config
	for _, name := range regions {
		w.registries[name] = harness.StartRegistry(s, name, harness.RegistryOptions{Notify: []harness.Endpoint{w.daemon.Endpoint(name)}})
		config.Registries = append(config.Registries, harness.RegistryConfig{
			Name: name, Addr: w.registries[name].Addr,
			Lines: []string{"region: " + map[string]string{"eu": "eu-west-1", "us": "us-east-1", "ap": "ap-south-1"}[name]},
		})
	}
	config.Routes = []harness.RouteConfig{{
		Name: "prod", From: "eu", To: []string{"us", "ap"},
		Lines: []string{"rpo: 30s", "sweep: 15s", "owner: platform-team", `contact: "#platform-oncall"`},
	}}
	w.daemon.WriteConfig()
	w.daemon.Start()
	return w
}

// watch shows the status beside the running demo until Ctrl-C.
func watch(s *harness.Stage, w *world) {
	s.Say("")
	s.Say("It goes on running. Push something yourself (plain HTTP), then look at the others:")
	s.Say("  crane copy --insecure IMAGE %s/team/mine:v1", w.registries["eu"].Addr)
	s.Say("  twinport status --behind --config %s", w.daemon.ConfigPath())
	s.Say("Ctrl-C ends everything.")
	s.Say("")
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	last, lines := "", 0
	for {
		select {
		case <-s.Context().Done():
			s.Say("\nEnding.")
			return
		case <-tick.C:
		}
		if !w.daemon.Process().Alive() {
			s.Fatalf("twinport ended")
		}
		status, err := w.daemon.Status(s.Context())
		if err != nil {
			continue
		}
		now := table(status)
		if s.Terminal && lines > 0 {
			fmt.Printf("\x1b[%dA\x1b[J", lines)
		} else if now == last {
			continue
		}
		last, lines = now, len(status.Routes)+2
		fmt.Printf("%s  %s\n%s", "status at", time.Now().Format(time.TimeOnly), now)
	}
}

func table(status harness.Status) string {
	out := fmt.Sprintf("  %-8s %-12s %8s %8s %-8s %7s %7s %7s\n", "ROUTE", "DESTINATION", "LAG", "RPO", "STATE", "WAITING", "RUNNING", "PROVEN")
	for _, r := range status.Routes {
		out += fmt.Sprintf("  %-8s %-12s %8s %8s %-8s %7d %7d %7d\n", r.Route, r.Destination, seconds(r.Lag), seconds(r.RPO), r.State, r.Waiting, r.Running, r.Proven)
	}
	return out
}

func seconds(v *float64) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf("%.1fs", *v)
}
