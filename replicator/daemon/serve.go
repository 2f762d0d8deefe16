package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Doors are what the daemon's two addresses serve.
type Doors struct {
	// Hooks serves POST /hooks/{registry} at the public address.
	Hooks http.Handler
	// API serves /api/v1/…, Metrics GET /metrics and Profiles /debug/pprof/… at
	// the admin address; they ask for the token themselves.
	API, Metrics, Profiles http.Handler
	// Ready tells whether the journal is writable and a config is loaded.
	Ready func(context.Context) error
	// Relieve, where not nil, takes back descriptors that are held for nothing.
	Relieve func()
	// TLS, where not nil, is spoken at both addresses.
	TLS *tls.Config
	Log *zap.Logger
}

const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 60 * time.Second // the hooks' handler sets a shorter one for bodies
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	// shutdownTimeout bounds how long requests in flight may take to be answered.
	shutdownTimeout = 10 * time.Second
)

// Serve answers at both addresses until ctx ends, then lets the requests in
// flight be answered.
func (doors Doors) Serve(ctx context.Context, public, admin net.Listener) error {
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { tell(w, http.StatusOK, "ok") })
	health.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		rctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := doors.Ready(rctx); err != nil {
			doors.Log.Warn("not ready", zap.Error(err))
			tell(w, http.StatusServiceUnavailable, "not ready: "+bounded(err.Error()))
			return
		}
		tell(w, http.StatusOK, "ready")
	})
	hooks := http.NewServeMux()
	hooks.Handle("/hooks/", doors.Hooks)
	hooks.Handle("GET /healthz", health)
	hooks.Handle("GET /readyz", health)
	operator := http.NewServeMux()
	operator.Handle("/api/", doors.API)
	operator.Handle("GET /metrics", doors.Metrics)
	operator.Handle("GET /debug/pprof/", doors.Profiles)
	operator.Handle("GET /healthz", health)
	operator.Handle("GET /readyz", health)

	// An operator's sync may run for hours: its answer has no deadline.
	g, gctx := errgroup.WithContext(ctx)
	for _, side := range []struct {
		crowd  *crowd
		server *http.Server
	}{
		{newCrowd(public, publicCrowd, doors.Log), &http.Server{Handler: hooks, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout}},
		{newCrowd(admin, adminCrowd, doors.Log), &http.Server{Handler: operator, ReadTimeout: bodyTimeout}},
	} {
		s := side.server
		side.crowd.guard(s)
		if doors.Relieve != nil {
			side.crowd.relieve = doors.Relieve
		}
		s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes = headerTimeout, idleTimeout, maxHeader
		s.ErrorLog = zap.NewStdLog(doors.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel)))
		var listener net.Listener = side.crowd
		if doors.TLS != nil {
			listener = tls.NewListener(listener, doors.TLS)
		}
		// Requests outlive ctx: a webhook in flight is committed and answered,
		// but an operator's long request is told to end.
		s.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
		if s.WriteTimeout == 0 {
			s.BaseContext = func(net.Listener) context.Context { return gctx }
		}
		g.Go(func() error {
			if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", listener.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			<-gctx.Done()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			if err := s.Shutdown(end); err != nil {
				return errors.Join(err, s.Close())
			}
			return nil
		})
	}
	return g.Wait()
}

func tell(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(message + "\n")) // a prober that went away
}

// A Note is what `serve` leaves in the data directory for the commands that
// find it locked: where the daemon listens, as bound.
type Note struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	PID    int    `json:"pid"`
	// TLS tells commands to speak https.
	TLS bool `json:"tls,omitempty"`
}

const noteFile = "daemon.json"

// Write puts the note into the data directory, whole or not at all.
func (n Note) Write(dir string) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, noteFile)
	if err := os.WriteFile(path+".new", append(body, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".new", path)
}

// ReadNote reads the note of the daemon that holds the data directory.
func ReadNote(dir string) (Note, error) {
	var n Note
	body, err := os.ReadFile(filepath.Join(dir, noteFile))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(body, &n); err != nil {
		return n, fmt.Errorf("%s: %w", filepath.Join(dir, noteFile), err)
	}
	return n, nil
}

// RemoveNote takes the note away at the end.
func RemoveNote(dir string) { _ = os.Remove(filepath.Join(dir, noteFile)) } // a stale one harms nobody
