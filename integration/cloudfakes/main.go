// Command cloudfakes starts the fakes of ECR (with SQS), ACR (with Entra) and
// Artifact Registry (with Pub/Sub) to try twinport by hand: no account, nothing
// leaves the machine.
//
//	go -C integration run ./cloudfakes
//	go -C integration run ./cloudfakes -upstream ecr=127.0.0.1:5000
//
// It prints the addresses, the environment that points the providers' SDKs at
// them, and a config, and goes on until Ctrl-C. What is pushed to a fake is told
// to the twinport of that config as the cloud would tell it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/twinport/twinport/integration/clouds"
	"github.com/twinport/twinport/integration/harness"
)

func main() {
	o := clouds.Options{Upstream: make(map[string]string)}
	listen := flag.String("listen", "127.0.0.1:8480", "where the config's twinport takes webhooks")
	flag.BoolVar(&o.Queues, "queues", false, "have events fetched from SQS and Pub/Sub instead of posted")
	flag.Func("upstream", "NAME=HOST:PORT of a registry that keeps the content of ecr, acr or gcr (default: memory); may be given again", func(s string) error {
		name, addr, ok := strings.Cut(s, "=")
		if !ok || name != clouds.ECR && name != clouds.ACR && name != clouds.GCR || addr == "" {
			return fmt.Errorf("write it like %s=127.0.0.1:5000", clouds.ECR)
		}
		o.Upstream[name] = addr
		return nil
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "cloudfakes: no arguments are taken, got %q\n", flag.Args())
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	s := harness.NewStage(ctx, "cloudfakes")
	code := s.Run(func() { show(s, o, *listen) })
	stop()
	os.Exit(code)
}

func show(s *harness.Stage, o clouds.Options, listen string) {
	fakes := clouds.Start(s, o)
	dir := s.TempDir()
	names := []string{clouds.ECR, clouds.ACR, clouds.GCR}
	config := harness.Config{Registries: fakes.Registries()}
	for _, from := range names {
		var to []string
		for _, name := range names {
			if name != from {
				to = append(to, name)
			}
		}
		config.Routes = append(config.Routes, harness.RouteConfig{
			Name: "from-" + from, From: from, To: to, Lines: []string{"repositories: {include: [" + from + "/**]}", "rpo: 30s"},
		})
		if !o.Queues || from == clouds.ACR {
			fakes.Post(from, "http://"+listen)
		}
	}
	yaml := config.YAML(listen, filepath.Join(dir, "data"))
	path, env := filepath.Join(dir, "twinport.yaml"), filepath.Join(dir, "env")
	var exports strings.Builder
	for _, line := range fakes.Env {
		name, value, _ := strings.Cut(line, "=")
		fmt.Fprintf(&exports, "export %s='%s'\n", name, value)
	}
	for file, text := range map[string]string{path: yaml, env: exports.String()} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			s.Fatalf("%v", err)
		}
	}
	s.Say("Fakes, by plain HTTP; what is pushed below NAME/ in one arrives in the others:")
	for _, name := range names {
		username, password := fakes.Login(s, name)
		s.Say("  %s  %s  user %s  password %s", name, fakes.Addr[name], username, password)
	}
	s.Say("")
	s.Say("Environment (%s):\n\n%s", env, exports.String())
	s.Say("Config (%s):\n\n%s", path, yaml)
	s.Say("Start twinport with it in another terminal:")
	s.Say("  . %s && twinport serve --config %s", env, path)
	s.Say("and push, as with crane (repositories of the fake ECR are made by twinport; %s/app is there):", clouds.ECR)
	s.Say("  crane auth login %s -u USER -p PASSWORD && crane copy --insecure IMAGE %s/%s/app:v1",
		fakes.Addr[clouds.ECR], fakes.Addr[clouds.ECR], clouds.ECR)
	s.Say("Ctrl-C ends everything.")
	fakes.MakeRepository(clouds.ECR + "/app")
	<-s.Context().Done()
	s.Say("\nEnding.")
}
