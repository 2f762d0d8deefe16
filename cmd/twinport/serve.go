package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/intake"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/limit"
)

func newServe(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon: take webhooks, copy and prove, sweep on schedule, and answer
commands and metrics at the admin address.

SIGHUP, or a change of the config file or of a file it names, reloads the
config; a bad file changes nothing. SIGTERM stops: requests in flight are
answered, copies in flight have 20 seconds to end and are then handed back;
nothing accepted is lost either way. A second SIGTERM ends at once.`,
		Example: `  twinport serve --config /etc/twinport/twinport.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			watcher := config.NewWatcher(o.config)
			cfg, err := loadConfig(o)
			if err != nil {
				return err
			}
			return classified(serve(cmd.Context(), o, cfg, watcher))
		},
	}
}

// A server is the running daemon and what a reload swaps in it.
type server struct {
	o       *options
	watcher *config.Watcher
	log     *zap.Logger
	journal *journal.Journal
	daemon  *daemon.Daemon
	intake  *intake.Intake
	metrics *limit.Metrics
	cfg     atomic.Pointer[config.Config]
	reload  sync.Mutex
}

func serve(ctx context.Context, o *options, cfg *config.Config, watcher *config.Watcher) (err error) {
	log, err := newLog(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // a terminal cannot be synced, and need not be
	public, admin, err := listen(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(public.Close(), admin.Close()) }() // closed by Serve before
	j, err := openServing(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()

	metrics := api.NewMetrics(version())
	s := &server{o: o, watcher: watcher, log: log, journal: j, metrics: limit.NewMetrics(metrics.Registry())}
	s.cfg.Store(cfg)
	st, err := newState(cfg, nil, s.metrics)
	if err != nil {
		return usage(err)
	}
	copier := newCopier(cfg)
	s.daemon = daemon.New(daemon.Options{Journal: j, Copier: copier, Log: log, History: cfg.History}, st)
	s.daemon.ObserveReplication(metrics.Replicated)
	s.intake = intake.New(intake.Options{Accept: s.daemon.Accept, Ahead: s.daemon.Ahead, Log: log, Metrics: metrics})
	s.intake.Swap(hooks(cfg))
	operator := daemon.Operator{Daemon: s.daemon, About: &api.DaemonStatus{
		Version: version(), PID: os.Getpid(), StartedAt: time.Now().UTC(),
		Listen: public.Addr().String(), Admin: admin.Addr().String(),
	}}
	metrics.Collect(operator)
	doors := daemon.Doors{
		Hooks: s.intake, API: api.Handler(operator, s.token), Metrics: api.Authorized(metrics.Handler(), s.token),
		Profiles: api.Profiles(s.token), Ready: j.Healthy, Relieve: s.daemon.Relieve, Log: log,
	}
	if doors.TLS, err = s.tls(); err != nil {
		return err
	}
	return s.run(ctx, doors, public, admin)
}

// run starts what the daemon is made of, in the order of need, and ends it in
// reverse: addresses and schedule, then jobs, then the journal.
func (s *server) run(ctx context.Context, doors daemon.Doors, public, admin net.Listener) error {
	cfg := s.cfg.Load()
	base := context.WithoutCancel(ctx)
	jctx, endJournal := context.WithCancel(base)
	defer endJournal()
	journalEnded := make(chan error, 1)
	go func() { journalEnded <- s.journal.Run(jctx) }()

	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // a second signal ends at once
		<-ctx.Done()
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		<-again
		os.Exit(exitInterrupted)
	}()
	err := s.daemon.Configure(base, "config")
	if err == nil {
		note := daemon.Note{Listen: public.Addr().String(), Admin: admin.Addr().String(), PID: os.Getpid(), TLS: doors.TLS != nil}
		err = note.Write(cfg.Data)
	}
	if err == nil {
		s.log.Info("serving", zap.String("version", version()), zap.String("listen", public.Addr().String()),
			zap.String("admin", admin.Addr().String()), zap.String("data", cfg.Data), zap.String("replica", s.journal.Replica()),
			zap.Int("registries", len(cfg.Registries)), zap.Int("routes", len(cfg.Routes)))
		g, gctx := errgroup.WithContext(work)
		g.Go(func() error { return doors.Serve(gctx, public, admin) })
		g.Go(func() error { return s.daemon.Run(gctx, handBack) })
		g.Go(func() error { s.watch(gctx); return nil })
		g.Go(func() error {
			select {
			case jerr := <-journalEnded:
				journalEnded <- jerr
				if gctx.Err() == nil {
					return fmt.Errorf("the journal ended: %w", errors.Join(jerr, journal.ErrClosed))
				}
			case <-gctx.Done():
			}
			return nil
		})
		err = g.Wait()
		daemon.RemoveNote(cfg.Data)
	}
	endJournal()
	err = errors.Join(err, <-journalEnded)
	s.log.Info("stopped", zap.Error(err))
	return err
}

// patientFor is how long a daemon that starts waits for its database.
const patientFor = time.Minute

// openServing opens the daemon's journal. A database that starts beside it, or
// changes over to another, is waited for.
func openServing(ctx context.Context, cfg *config.Config, log *zap.Logger) (*journal.Journal, error) {
	o := journalOptions(cfg, journal.Serves)
	o.TookOver = func(replica string, jobs int) {
		log.Warn("a replica is dead, its jobs are handed out again", zap.String("replica", replica), zap.Int("jobs", jobs))
	}
	until := time.Now().Add(patientFor)
	for {
		j, err := openJournal(ctx, cfg, o)
		if !errors.Is(err, journal.ErrUnavailable) || ctx.Err() != nil || time.Now().After(until) {
			return j, err
		}
		log.Warn("waiting for the database", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func listen(cfg *config.Config) (public, admin net.Listener, err error) {
	if public, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	if admin, err = net.Listen("tcp", cfg.Admin); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("admin: %w", err), public.Close())
	}
	return public, admin, nil
}

// token is the present config's api.token: the admin address lets everybody in
// where it is empty, which the config allows on loopback alone.
func (s *server) token() (string, error) {
	t := s.cfg.Load().API.Token
	if t.IsZero() {
		return "", nil
	}
	return t.Value()
}

// tls serves the config's certificate, read anew when its file changes.
func (s *server) tls() (*tls.Config, error) {
	cfg := s.cfg.Load()
	if cfg.TLS.Cert == "" {
		return nil, nil
	}
	var mu sync.Mutex
	var cert *tls.Certificate
	var read time.Time
	load := func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		now := s.cfg.Load().TLS
		var changed time.Time
		for _, file := range []string{now.Cert, now.Key} {
			info, err := os.Stat(file)
			if err != nil {
				return cert, err
			}
			if info.ModTime().After(changed) {
				changed = info.ModTime()
			}
		}
		if cert != nil && changed.Equal(read) {
			return cert, nil
		}
		pair, err := tls.LoadX509KeyPair(now.Cert, now.Key)
		if err != nil {
			return cert, err
		}
		cert, read = &pair, changed
		return cert, nil
	}
	if _, err := load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := load()
			if pair != nil { // a half-written renewal: the one before still serves
				return pair, nil
			}
			return nil, err
		},
	}, nil
}

// watch reloads on SIGHUP and when the config or a file it names changes.
func (s *server) watch(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Add(1)
	go func() {
		defer watching.Done()
		s.watcher.Run(ctx, func() { s.reloadConfig(ctx, "a file changed") })
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			s.reloadConfig(ctx, "SIGHUP")
		}
	}
}

// reloadConfig builds the whole new state first and swaps last; a bad file, or
// a change that needs a restart, changes nothing.
func (s *server) reloadConfig(ctx context.Context, why string) {
	s.reload.Lock()
	defer s.reload.Unlock()
	log := s.log.With(zap.String("component", "config"), zap.String("why", why))
	refuse := func(err error) {
		log.Error("the config is not taken", zap.Error(err))
		if err := s.journal.AddFindings(ctx, []replicator.Finding{notTaken(err, time.Now())}); err != nil && ctx.Err() == nil {
			log.Warn("write a finding", zap.Error(err))
		}
	}
	cfg, err := config.Load(s.o.config)
	if err != nil {
		refuse(err)
		return
	}
	before := s.cfg.Load()
	if cfg.Listen != before.Listen || cfg.Admin != before.Admin || cfg.Data != before.Data ||
		cfg.Spool != before.Spool || cfg.Log != before.Log || (cfg.TLS.Cert == "") != (before.TLS.Cert == "") ||
		cfg.History != before.History || cfg.Database.Origin() != before.Database.Origin() {
		log.Warn("listen, admin, tls on or off, data, database, spool, history and log take effect at the next start; the rest is taken now")
	}
	st, err := newState(cfg, s.daemon.State(), s.metrics)
	if err != nil {
		refuse(err)
		return
	}
	gone := s.daemon.State().Registries
	if err := s.daemon.Swap(ctx, st, "config"); err != nil {
		refuse(err)
		return
	}
	s.intake.Swap(hooks(cfg))
	s.cfg.Store(cfg)
	for name := range gone {
		if _, still := st.Registries[name]; !still {
			s.metrics.Forget(name)
		}
	}
	log.Info("config taken", zap.Int("registries", len(cfg.Registries)), zap.Int("routes", len(cfg.Routes)))
}

// notTaken is the finding of a config that a reload refused: the daemon goes on
// by the one before, and nobody may have looked at its log.
func notTaken(err error, now time.Time) replicator.Finding {
	first, _, more := strings.Cut(err.Error(), "\n")
	if more {
		first += " …"
	}
	return replicator.Finding{
		Kind: replicator.FindingConfig, At: now,
		Message: fmt.Sprintf("a changed config was not taken, the one before still counts: %.400s", first),
		Hint:    "`twinport validate` shows every fault; acknowledge this once a good one is taken",
	}
}
