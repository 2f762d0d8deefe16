package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/replicator/check"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
)

const (
	// probeName is the repository that a check makes up where it may make one.
	probeName = "twinport-check"
	// maxPlanned bounds the names that are asked of a source for a destination,
	// sourceTime the asking.
	maxPlanned = 5
	sourceTime = 10 * time.Second
)

// subjects makes of a config what check looks at: the registries named, or all.
func subjects(cfg *config.Config, names []string) ([]check.Subject, error) {
	for _, name := range names {
		if _, known := cfg.Registry(name); !known {
			var all []string
			for i := range cfg.Registries {
				all = append(all, cfg.Registries[i].Name)
			}
			return nil, fmt.Errorf("no registry %q; the registries are %s", name, strings.Join(all, ", "))
		}
	}
	st, err := newState(cfg, nil, nil)
	if err != nil {
		return nil, err
	}
	// Clients of its own, which make no repository by themselves.
	opened := make(map[string]*daemon.Registry, len(cfg.Registries))
	for i := range cfg.Registries {
		r := cfg.Registries[i]
		r.Create = nil
		if opened[r.Name], err = openRegistry(&r, nil); err != nil {
			return nil, fmt.Errorf("registries.%s: %w", r.Name, err)
		}
	}
	var list []check.Subject
	for i := range cfg.Registries {
		r := &cfg.Registries[i]
		if len(names) > 0 && !slices.Contains(names, r.Name) {
			continue
		}
		own := opened[r.Name]
		s := check.Subject{
			Name: r.Name, Kind: r.Kind, Address: r.Address, Client: own.Client,
			Makes: providers.Makes(r.Kind), Traceless: providers.Traceless(r.Kind), Signs: providers.Signs(r.Kind), MountHint: providers.MountHint(r.Kind),
			From: reads(cfg, st.Rules, r.Name), To: writes(cfg, st.Rules, r, opened),
		}
		for j := range cfg.Routes {
			route := &cfg.Routes[j]
			if (route.From == r.Name || slices.Contains(route.To, r.Name)) && route.Referrers != config.ReferrersFalse {
				s.Referrers = true
			}
		}
		s.Events = eventsOf(r)
		if queue, is := own.Queue.(check.Queue); is {
			s.Events.Queue = queue
		}
		s.Hook = hookOf(r, s)
		list = append(list, s)
	}
	return list, nil
}

func eventsOf(r *config.Registry) check.Events {
	switch {
	case r.Events == nil:
		return check.Events{}
	case r.Events.SQS != "":
		return check.Events{From: "events.sqs"}
	case r.Events.PubSub != "":
		return check.Events{From: "events.pubsub"}
	}
	return check.Events{From: "events.poll"}
}

func hookOf(r *config.Registry, s check.Subject) check.Hook {
	h := check.Hook{Verified: r.Webhook.Google != nil}
	for _, secret := range r.Webhook.Secret {
		h.Secrets = append(h.Secrets, secret.Value)
	}
	switch {
	case s.From == nil:
		h.NotNeeded = "no route reads from it"
	case s.Events.From != "" && len(h.Secrets) == 0 && !h.Verified:
		h.NotNeeded = "its events come by " + s.Events.From
	}
	return h
}

// reads is what routes read of a registry, nil: nothing.
func reads(cfg *config.Config, rules *plan.Rules, name string) *check.Use {
	use := &check.Use{}
	var routes []string
	for i := range cfg.Routes {
		if cfg.Routes[i].From == name {
			routes = append(routes, cfg.Routes[i].Name)
		}
	}
	for _, route := range routes {
		literal, ok := rules.LiteralRepositories(route)
		use.Names = append(use.Names, literal...)
		use.Patterns = use.Patterns || !ok
	}
	use.Match = func(repository string) bool {
		return slices.ContainsFunc(routes, func(route string) bool { ok, _ := rules.Selects(route, repository); return ok })
	}
	if len(routes) == 0 {
		return nil
	}
	slices.Sort(use.Names)
	use.Names = slices.Compact(use.Names)
	return use
}

// writes is what routes write to a registry, nil: nothing.
func writes(cfg *config.Config, rules *plan.Rules, r *config.Registry, opened map[string]*daemon.Registry) *check.Use {
	use := &check.Use{Create: r.Create != nil && r.Create.Missing}
	var routes []*config.Route
	var open []*config.Route // whose names their sources have to tell
	for i := range cfg.Routes {
		route := &cfg.Routes[i]
		if !slices.Contains(route.To, r.Name) {
			continue
		}
		routes = append(routes, route)
		use.Delete = use.Delete || route.Deletes.Mirror != nil
		literal, ok := rules.LiteralRepositories(route.Name)
		for _, repository := range literal {
			if name, err := rules.Destination(route.Name, repository); err == nil {
				use.Names = append(use.Names, name)
			}
		}
		if ok {
			continue
		}
		use.Patterns = true
		open = append(open, route)
		if example, ok := rules.Example(route.Name, probeName); ok && use.Example == "" {
			if name, err := rules.Destination(route.Name, example); err == nil && strings.Contains(name, probeName) {
				use.Example = name
			}
		}
	}
	if len(routes) == 0 {
		return nil
	}
	use.Match = func(repository string) bool {
		return slices.ContainsFunc(routes, func(route *config.Route) bool { return rules.MayWrite(route.Name, repository) })
	}
	use.Planned = func(ctx context.Context) []string { return planned(ctx, rules, open, opened) }
	return use
}

// planned asks sources for repositories that routes take, and gives the names
// these get at their destinations. What keeps a source from telling is its own
// report's to say.
func planned(ctx context.Context, rules *plan.Rules, routes []*config.Route, opened map[string]*daemon.Registry) (names []string) {
	ctx, cancel := context.WithTimeout(oci.WithDetours(ctx, func(error) {}), sourceTime)
	defer cancel()
	for _, route := range routes {
		seen := 0
		for repository, err := range opened[route.From].Client.Repositories(ctx) {
			if seen++; err != nil || len(names) >= maxPlanned || seen > 10_000 {
				break
			}
			if ok, _ := rules.Selects(route.Name, repository); !ok {
				continue
			}
			if name, err := rules.Destination(route.Name, repository); err == nil {
				names = append(names, name)
			}
		}
	}
	return names
}
