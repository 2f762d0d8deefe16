package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/intake"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/transfer"
)

// loadConfig reads the config; its faults exit 2.
func loadConfig(o *options) (*config.Config, error) {
	cfg, err := config.Load(o.config)
	if err == nil {
		return cfg, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, usage(fmt.Errorf("%w; name the config with --config, or see the examples in deploy/examples", err))
	}
	return nil, usage(err)
}

// newState makes of a config all that the daemon runs by. Gates of registries
// that have not changed are kept from the state before, so that limits,
// breakers and counters outlive a reload.
func newState(cfg *config.Config, before *daemon.State, metrics *limit.Metrics) (*daemon.State, error) {
	st := &daemon.State{
		Registries:     make(map[string]*daemon.Registry, len(cfg.Registries)),
		RouteBandwidth: make(map[string]*limit.Bandwidth),
		Fed:            make(map[string]bool),
	}
	fingerprint := sha256.New()
	fmt.Fprintf(fingerprint, "%s\n", version())
	var named []plan.Registry
	for i := range cfg.Registries {
		r := &cfg.Registries[i]
		stamp := registryPrint(r)
		fmt.Fprintln(fingerprint, stamp)
		if before != nil {
			if old := before.Registries[r.Name]; old != nil && old.Print == stamp {
				st.Registries[r.Name] = old
				named = append(named, plan.Registry{Name: r.Name, Identity: old.Client.Identity()})
				continue
			}
		}
		reg, err := openRegistry(r, metrics)
		if err != nil {
			return nil, fmt.Errorf("registries.%s: %w", r.Name, err)
		}
		reg.Print = stamp
		st.Registries[r.Name] = reg
		named = append(named, plan.Registry{Name: r.Name, Identity: reg.Client.Identity()})
	}
	var routes []plan.Route
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		route := planRoute(r)
		fmt.Fprintf(fingerprint, "%+v\n", route)
		routes = append(routes, route)
		for _, to := range r.To {
			st.Fed[to] = true
		}
		if b := limit.NewBandwidth(table(r.Bandwidth, r.Timezone)); b != nil {
			st.RouteBandwidth[r.Name] = b
		}
	}
	rules, err := plan.New(routes, named)
	if err != nil {
		return nil, err
	}
	st.Rules = rules
	st.Fingerprint = hex.EncodeToString(fingerprint.Sum(nil))[:16]
	return st, nil
}

// registryPrint changes with everything that a client or its gate is made of.
// Secrets print as <redacted> and are read anew at each use.
func registryPrint(r *config.Registry) string {
	auth := r.Auth
	auth.AssumeRole, auth.Azure, auth.Google = nil, nil, nil // pointers, printed below
	var role config.AssumeRole
	var azure config.Azure
	var google config.Google
	if r.Auth.Azure != nil {
		azure = *r.Auth.Azure
	}
	if r.Auth.Google != nil {
		google = *r.Auth.Google
	}
	if r.Auth.AssumeRole != nil {
		role = *r.Auth.AssumeRole
	}
	create, err := createOf(r)
	if create == nil {
		create = &generic.Create{}
	}
	return fmt.Sprintf("%s %s %s %t %+v %+v %+v %+v %s %s %s %s %+v %t %+v %v", r.Name, r.Kind, r.Address, r.PlainHTTP, r.TLS, r.Limits.Bandwidth,
		r.Redirects.Allow, auth, r.Limits.Timezone, fmt.Sprint(r.Limits.Requests, r.Limits.Connections,
			r.Auth.Password.Origin(), r.Auth.Token.Origin(),
			r.Auth.Azure != nil, azure, azure.Secret.Origin(), google), r.Region, queueOf(r)+pollOf(r).String(), role, r.Create != nil && r.Create.Missing, *create, err)
}

// queueOf is where a registry's events wait, empty: they come by webhook.
func queueOf(r *config.Registry) string {
	if r.Events == nil {
		return ""
	}
	return r.Events.SQS + r.Events.PubSub // the config takes one alone
}

// pollOf is how often a registry is looked at, 0: its events are told.
func pollOf(r *config.Registry) time.Duration {
	if r.Events == nil {
		return 0
	}
	return r.Events.Poll
}

// maxPolicy bounds a policy file in bytes.
const maxPolicy = 1 << 20

// createOf says how missing repositories are made, nil where they are not.
func createOf(r *config.Registry) (*generic.Create, error) {
	c := r.Create
	if c == nil || !c.Missing {
		return nil, nil
	}
	how := &generic.Create{ImmutableTags: c.ImmutableTags, KMS: c.KMS, Scan: c.Scan, Labels: c.Labels}
	for _, one := range []struct {
		key, file string
		into      *string
	}{{"create.lifecycle", c.Lifecycle.File, &how.Lifecycle}, {"create.policy", c.Policy.File, &how.Policy}} {
		if one.file == "" {
			continue
		}
		text, err := readPolicy(one.file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.key, err)
		}
		*one.into = text
	}
	return how, nil
}

// readPolicy reads a file of a policy, at most 1 MiB.
func readPolicy(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	policy, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(policy) > maxPolicy {
		err = fmt.Errorf("%s is over 1 MiB", file)
	}
	return string(policy), err
}

func openRegistry(r *config.Registry, metrics *limit.Metrics) (*daemon.Registry, error) {
	spec := generic.Spec{
		Name: r.Name, Kind: r.Kind, Host: r.Host, Prefix: r.Prefix, PlainHTTP: r.PlainHTTP,
		TLS: generic.TLSFiles{CA: r.TLS.CA, Cert: r.TLS.Cert, Key: r.TLS.Key},
		Auth: generic.Auth{
			Username: r.Auth.Username, Password: secret(r.Auth.Password), Token: secret(r.Auth.Token), Anonymous: r.Auth.Anonymous,
		},
		Redirects: r.Redirects.Allow, Region: r.Region, Pinned: providers.Pinned(r.Kind),
	}
	if role := r.Auth.AssumeRole; role != nil {
		spec.Auth.AssumeRole = &generic.AssumeRole{ARN: role.ARN, ExternalID: role.ExternalID}
	}
	if a := r.Auth.Azure; a != nil {
		spec.Auth.Azure = &generic.Azure{Tenant: a.Tenant, Client: a.Client, Secret: secret(a.Secret)}
	}
	if g := r.Auth.Google; g != nil {
		spec.Auth.Google = &generic.Google{File: g.File}
	}
	var err error
	if spec.Create, err = createOf(r); err != nil {
		return nil, err
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		return nil, err
	}
	gate := limit.New(limit.Spec{
		Registry: r.Name, Requests: r.Limits.Requests, Rates: providers.Rates(r.Kind), Connections: r.Limits.Connections,
		Bandwidth: table(r.Limits.Bandwidth, r.Limits.Timezone),
	}, transport, metrics)
	client, err := providers.Open(spec, gate)
	if err != nil {
		return nil, err
	}
	opened := &daemon.Registry{Name: r.Name, Client: client, Gate: gate, Prefix: r.Prefix, Poll: pollOf(r)}
	switch queue := queueOf(r); {
	case queue == "":
	case r.Kind == "gcr":
		opened.Queue, err = gcr.NewQueue(spec, queue, transport)
	default:
		opened.Queue, err = ecr.NewQueue(spec, queue, transport)
	}
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// secret is a config's secret as the rooms take it, nil where there is none.
func secret(s config.Secret) func() (string, error) {
	if s.IsZero() {
		return nil
	}
	return s.Value
}

func table(b config.Bandwidth, zone *time.Location) limit.Table {
	t := limit.Table{BytesPerSecond: float64(b.Rate), Location: zone}
	for _, w := range b.Windows {
		t.Windows = append(t.Windows, limit.Window{From: w.From, To: w.To, BytesPerSecond: float64(w.Rate), Location: w.Timezone})
	}
	return t
}

func planRoute(r *config.Route) plan.Route {
	route := plan.Route{
		Name: r.Name, From: r.From, To: r.To,
		Repositories: plan.Filter{Include: r.Repositories.Include, Exclude: r.Repositories.Exclude},
		Tags: plan.TagFilter{
			Include: r.Tags.Include, Exclude: r.Tags.Exclude, Semver: r.Tags.SemVer, MaxAge: r.Tags.MaxAge, Newest: r.Tags.Newest,
		},
		Rename: r.Rename, Referrers: string(r.Referrers), Untagged: r.Untagged == config.UntaggedCopy, Drift: string(r.Drift),
		RPO: r.RPO, Sweep: r.Sweep, Proof: r.Proof, SourceGone: r.SourceGone, Owner: r.Owner, Contact: r.Contact,
	}
	if m := r.Deletes.Mirror; m != nil {
		route.Deletes = plan.Deletes{Mirror: true, Grace: m.Grace, AtMost: m.AtMost}
	}
	switch {
	case r.Conflict.Newest:
		route.Conflict = "newest"
	case r.Conflict.Prefer != "":
		route.Conflict, route.Prefer = "prefer", r.Conflict.Prefer
	}
	return route
}

// hooks are the registries as intake takes them: only those that some route
// starts from can tell anything of use, but all may tell. One whose events are
// fetched, or that is polled, needs no secret, and without one nobody may speak
// for it.
func hooks(cfg *config.Config) []intake.Registry {
	var list []intake.Registry
	for i := range cfg.Registries {
		r := &cfg.Registries[i]
		if r.Events != nil && len(r.Webhook.Secret) == 0 && r.Webhook.Google == nil {
			continue
		}
		reg := intake.Registry{Name: r.Name, Prefix: r.Prefix, Decoder: decoder(r)}
		for _, s := range r.Webhook.Secret {
			reg.Secrets = append(reg.Secrets, s.Value)
		}
		if g := r.Webhook.Google; g != nil {
			reg.Verify = (&gcr.Verifier{Audience: g.Audience, Email: g.Email}).Verify
		}
		list = append(list, reg)
	}
	return list
}

func newCopier(cfg *config.Config) *transfer.Copier {
	return transfer.New(transfer.Options{SpoolDir: cfg.Spool.Path, SpoolMax: cfg.Spool.Max})
}

// newCommandCopier is one for a command beside a daemon that may use the same
// data directory: it has a spool of its own, to be removed at the end.
func newCommandCopier(cfg *config.Config) (c *transfer.Copier, remove func() error, err error) {
	if cfg.Database.IsZero() {
		return newCopier(cfg), func() error { return nil }, nil
	}
	if err := os.MkdirAll(cfg.Spool.Path, 0o700); err != nil {
		return nil, nil, fmt.Errorf("spool: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Spool.Path, "command-")
	if err != nil {
		return nil, nil, fmt.Errorf("spool: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	return transfer.New(transfer.Options{SpoolDir: dir, SpoolMax: cfg.Spool.Max}), remove, nil
}

func newLog(cfg *config.Config) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Log.Level)
	if err != nil {
		return nil, usage(fmt.Errorf("log.level: %w", err))
	}
	c := zap.NewProductionConfig()
	if cfg.Log.Format == "console" {
		c = zap.NewDevelopmentConfig()
		c.Development = false
	}
	c.Level = zap.NewAtomicLevelAt(level)
	c.EncoderConfig.TimeKey = "time"
	c.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	c.DisableStacktrace, c.DisableCaller = true, true
	c.Sampling = nil
	return c.Build()
}

// journalOptions say where the config has the journal.
func journalOptions(cfg *config.Config, role journal.Role) journal.Options {
	return journal.Options{Dir: cfg.Data, Database: secret(cfg.Database), Role: role}
}

// openJournal opens the journal for writing; what stops it exits 1 with what
// to do about it.
func openJournal(ctx context.Context, cfg *config.Config, o journal.Options) (*journal.Journal, error) {
	j, err := journal.Open(ctx, o)
	switch {
	case err == nil:
		return j, nil
	case o.Database != nil && !errors.Is(err, journal.ErrLocked):
		return nil, err
	}
	return nil, fmt.Errorf("data directory %s: %w", cfg.Data, err)
}

// actorName says who runs this command, for the audit.
func actorName() string {
	user := os.Getenv("SUDO_USER")
	if user == "" {
		user = os.Getenv("USER")
	}
	if user == "" {
		user = fmt.Sprintf("uid %d", os.Getuid())
	}
	host, _ := os.Hostname() // an unnamed host is left out
	return strings.TrimSuffix("cli "+user+"@"+host, "@")
}

// hasJournal tells whether there is a journal in the data directory.
func hasJournal(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "journal.db"))
	return err == nil
}
