package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A Daemon is a twinport with its config file and data directory; it can be
// started, ended and started again.
type Daemon struct {
	// Dir holds twinport.yaml, the log and the data directory.
	Dir string
	// Listen is where webhooks go, known before the start.
	Listen string
	// Config may be changed; WriteConfig writes it.
	Config Config
	// Race takes the binary with the race detector, where there is one.
	Race bool
	// Env is further environment, "NAME=value".
	Env []string
	// Under, where not empty, is the command that runs it, as env(1) would.
	Under []string
	// Clock, where not nil, is the daemon's own; it cannot be had with Under.
	Clock *Clock
	// Volume, where not nil, holds the data directory.
	Volume *Volume

	t       T
	process *Process
	admin   string
	http    *http.Client
}

// NewDaemon writes a config and starts nothing yet.
func NewDaemon(t T, config Config) *Daemon {
	t.Helper()
	d := &Daemon{
		Dir:    filepath.Join(t.TempDir(), "twinport"),
		Listen: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		Config: config, t: t,
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	if err := os.MkdirAll(d.Data(), 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	d.WriteConfig()
	t.Cleanup(func() {
		if d.process != nil {
			d.dump()
		}
		d.http.CloseIdleConnections()
	})
	return d
}

// WriteConfig writes the config file, at once and whole.
func (d *Daemon) WriteConfig() {
	d.t.Helper()
	next := d.ConfigPath() + ".next"
	if err := os.WriteFile(next, []byte(d.Config.YAML(d.Listen, d.data())), 0o600); err != nil {
		d.t.Fatalf("%v", err)
	}
	if err := os.Rename(next, d.ConfigPath()); err != nil {
		d.t.Fatalf("%v", err)
	}
}

// ConfigPath is the config file.
func (d *Daemon) ConfigPath() string { return filepath.Join(d.Dir, "twinport.yaml") }

// Data is the data directory, as a test may read it.
func (d *Daemon) Data() string {
	if d.Volume != nil {
		return filepath.Join(d.Volume.Seen(), "data")
	}
	return filepath.Join(d.Dir, "data")
}

// data is the data directory as the daemon knows it.
func (d *Daemon) data() string {
	if d.Volume != nil {
		return filepath.Join(d.Volume.Path, "data")
	}
	return d.Data()
}

// LogPath is the file with the daemon's output of all its lives.
func (d *Daemon) LogPath() string { return filepath.Join(d.Dir, "twinport.log") }

// Log is the daemon's output so far.
func (d *Daemon) Log() string {
	raw, err := os.ReadFile(d.LogPath())
	if err != nil {
		return ""
	}
	return string(raw)
}

// Process is the running daemon.
func (d *Daemon) Process() *Process { return d.process }

func (d *Daemon) binary() string {
	d.t.Helper()
	if d.Race && os.Getenv("TWINPORT_RACE") != "off" && hasCompiler() {
		return mustBinary(d.t, TwinportRace)
	}
	return mustBinary(d.t, Twinport)
}

// Start starts the daemon and waits until it is ready.
func (d *Daemon) Start() {
	d.t.Helper()
	d.Launch()
	d.WaitReady()
}

// Launch starts the daemon without waiting.
func (d *Daemon) Launch() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.Data(), "daemon.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatalf("%v", err)
	}
	var before func(int) error
	if d.Clock != nil {
		before = d.Clock.rule
	}
	command := d.under("serve", "--config", d.ConfigPath())
	d.process = startProcess(d.t, "twinport", command[0], command[1:], d.Env, d.LogPath(), before)
}

// under is the command line of twinport with these arguments.
func (d *Daemon) under(args ...string) []string {
	d.t.Helper()
	var command []string
	if d.Volume != nil {
		command = d.Volume.enter()
	}
	command = append(command, d.Under...)
	return append(append(command, d.binary()), args...)
}

// WaitReady waits for daemon.json and /readyz.
func (d *Daemon) WaitReady() {
	d.t.Helper()
	WaitFor(d.t, "twinport to be ready", 60*time.Second, func(ctx context.Context) error {
		if !d.process.Alive() {
			d.t.Fatalf("twinport serve ended: %s", tail(d.LogPath(), 4000))
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.PID != d.process.PID() {
			return fmt.Errorf("daemon.json is of pid %d, not %d", info.PID, d.process.PID())
		}
		d.admin = info.Admin
		_, err = d.get(ctx, "/readyz")
		return err
	})
}

// Ready is nil where the daemon says that it is.
func (d *Daemon) Ready(ctx context.Context) error {
	_, err := d.get(ctx, "/readyz")
	return err
}

// Info is what the daemon says of itself in its data directory.
type Info struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	PID    int    `json:"pid"`
}

// Info reads daemon.json.
func (d *Daemon) Info() (Info, error) {
	raw, err := os.ReadFile(filepath.Join(d.Data(), "daemon.json"))
	if err != nil {
		return Info{}, err
	}
	var info Info
	err = json.Unmarshal(raw, &info)
	return info, err
}

// Kill ends the daemon as kill -9 does.
func (d *Daemon) Kill() { d.process.Kill() }

// Terminate sends SIGTERM and returns the exit code, failing after the deadline.
func (d *Daemon) Terminate(deadline time.Duration) int {
	d.t.Helper()
	if err := d.process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatalf("SIGTERM: %v", err)
	}
	code, err := d.process.Wait(deadline)
	if err != nil {
		d.t.Fatalf("SIGTERM: %v\n%s", err, tail(d.LogPath(), 4000))
	}
	return code
}

// DeleteJournal removes the journal of a daemon that does not run.
func (d *Daemon) DeleteJournal() {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.Data(), "journal.db*"))
	if err != nil || len(files) == 0 {
		d.t.Fatalf("no journal.db in %s (%v)", d.Data(), err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			d.t.Fatalf("%v", err)
		}
	}
}

// HookURL is where a registry's webhooks go.
func (d *Daemon) HookURL(registry string) string {
	return "http://" + d.Listen + "/hooks/" + registry
}

// Endpoint is the daemon's webhook as a notification endpoint of the registry named so.
func (d *Daemon) Endpoint(registry string) Endpoint {
	return Endpoint{URL: d.HookURL(registry), Authorization: "Bearer " + Secret(registry)}
}

// Post sends a webhook and returns the answer's status, 0 when there was none.
func (d *Daemon) Post(ctx context.Context, registry string, body []byte) (int, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.HookURL(registry), bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+Secret(registry))
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	resp, err := d.http.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, string(answer)
}

var eventIDs atomic.Int64

// PushEvent is distribution's envelope for a push of a graph to a repository
// of the registry at host; without a tag it is a push by digest.
func PushEvent(host, repository, tag string, g *Graph, at time.Time) []byte {
	target := map[string]any{
		"mediaType": g.MediaType, "digest": g.Digest, "size": g.Size, "length": g.Size, "repository": repository,
		"url": fmt.Sprintf("http://%s/v2/%s/manifests/%s", host, repository, g.Digest),
	}
	if tag != "" {
		target["tag"] = tag
	}
	return must(json.Marshal(map[string]any{"events": []any{map[string]any{
		"id":        fmt.Sprintf("event-%d", eventIDs.Add(1)),
		"timestamp": at.UTC().Format(time.RFC3339Nano),
		"action":    "push", "target": target,
		"request": map[string]any{"host": host, "method": "PUT"}, "actor": map[string]any{},
		"source": map[string]any{"addr": host, "instanceID": "integration"},
	}}}))
}

// ErrEnded tells that the daemon's process is gone, though the test did not end it.
var ErrEnded = errors.New("twinport has ended")

func (d *Daemon) get(ctx context.Context, path string) ([]byte, error) {
	admin := d.admin
	if !strings.HasPrefix(admin, "http") {
		admin = "http://" + admin
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		if !d.process.Alive() {
			return nil, fmt.Errorf("%w: %s", ErrEnded, d.process.cmd.ProcessState)
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return body, nil
}

// Admin is the base URL of the admin address.
func (d *Daemon) Admin() string { return "http://" + strings.TrimPrefix(d.admin, "http://") }

// Command runs a twinport command with this daemon's config.
func (d *Daemon) Command(args ...string) Result {
	d.t.Helper()
	command := d.under(append(args, "--config", d.ConfigPath())...)
	return run(d.t, 3*time.Minute, d.Dir, d.Env, command[0], command[1:]...)
}

// Run runs twinport with these arguments alone, in the daemon's directory.
func (d *Daemon) Run(args ...string) Result {
	d.t.Helper()
	return run(d.t, 3*time.Minute, d.Dir, d.Env, d.binary(), args...)
}

// dump fails the test on a race, and prints what a failure's reader needs.
func (d *Daemon) dump() {
	if strings.Contains(d.Log(), "WARNING: DATA RACE") {
		d.t.Errorf("data race:\n%s", raceReport(d.Log()))
	}
	if strings.Contains(d.Log(), "panic: ") || strings.Contains(d.Log(), "fatal error: ") {
		d.t.Errorf("the daemon panicked")
	}
	if !d.t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if d.process.Alive() {
		for _, path := range []string{"/api/v1/status", "/api/v1/jobs", "/api/v1/findings"} {
			body, err := d.get(ctx, path)
			d.t.Logf("--- %s: %v %s", path, err, clip(body, 3000))
		}
	}
	config, _ := os.ReadFile(d.ConfigPath())
	d.t.Logf("--- twinport.yaml\n%s\n--- last of the daemon's log:\n%s", config, tail(d.LogPath(), 6000))
}

func raceReport(log string) string {
	at := strings.Index(log, "WARNING: DATA RACE")
	return log[at:min(len(log), at+5000)]
}

func clip(b []byte, n int) []byte {
	if len(b) > n {
		return append(b[:n:n], "…"...)
	}
	return b
}
