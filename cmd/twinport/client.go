package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/daemon"
	"github.com/twinport/twinport/replicator/journal"
)

// maxLine bounds an answer, or one line of a streamed one: a plan of a million
// tags is long.
const maxLine = 1 << 30

// A client is the operator that a running daemon's admin address offers.
type client struct {
	base  string
	http  *http.Client
	token func() (string, error)
}

var _ api.Operator = (*client)(nil)

// dial finds the daemon that holds the data directory, by the note it left there.
func dial(ctx context.Context, cfg *config.Config) (*client, error) {
	note, err := daemon.ReadNote(cfg.Data)
	if err != nil {
		return nil, fmt.Errorf("no daemon has left its address: %w", err)
	}
	c := &client{base: "http://" + reachable(note.Admin), http: &http.Client{}, token: secret(cfg.API.Token)}
	if note.TLS {
		c.base = "https://" + reachable(note.Admin)
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig, err = trust(cfg)
		if err != nil {
			return nil, err
		}
		c.http.Transport = transport
	}
	hctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(hctx, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the daemon (pid %d) does not answer at %s: %w", note.PID, note.Admin, err)
	}
	_ = resp.Body.Close() // only that it answers counts
	return c, nil
}

// trust accepts the very certificate that the config has the daemon show,
// whatever name the command reaches it by.
func trust(cfg *config.Config) (*tls.Config, error) {
	pem, err := os.ReadFile(cfg.TLS.Cert)
	if err != nil {
		return nil, fmt.Errorf("tls.cert: %w", err)
	}
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		if pair, err = tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("tls.cert: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is not what is checked: the leaf must be the config's own.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the leaf
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !s.PeerCertificates[0].Equal(leaf) {
				return errors.New("the daemon shows another certificate than the config's tls.cert")
			}
			return nil
		},
	}, nil
}

// reachable turns an address bound to all interfaces into one to connect to.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

func (c *client) do(ctx context.Context, method, path string, query url.Values, body any, accept string) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Twinport-Actor", actorName())
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", accept)
	if c.token != nil {
		token, err := c.token()
		if err != nil {
			return nil, fmt.Errorf("api.token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	return resp, nil
}

func (c *client) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	return c.read(ctx, method, path, query, body, func(answer io.Reader) error {
		return json.NewDecoder(answer).Decode(into)
	})
}

// read asks, and hands a good answer's body to f.
func (c *client) read(ctx context.Context, method, path string, query url.Values, body any, f func(io.Reader) error) error {
	resp, err := c.do(ctx, method, path, query, body, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxLine)
	if resp.StatusCode != http.StatusOK {
		var p api.Problem
		if err := json.NewDecoder(answer).Decode(&p); err != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return problem(resp.StatusCode, p)
	}
	if err := f(answer); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// problem gives an error of the daemon the kind it had there.
func problem(code int, p api.Problem) error {
	switch code {
	case http.StatusBadRequest:
		return &api.UsageError{Message: p.Error, Hint: p.Hint}
	case http.StatusNotFound:
		return unknown(p.Error)
	}
	if p.Hint != "" {
		return fmt.Errorf("%s (%s)", p.Error, p.Hint)
	}
	return errors.New(p.Error)
}

// An unknown is the daemon's words for a journal.ErrUnknown.
type unknown string

func (u unknown) Error() string { return string(u) }

func (unknown) Unwrap() error { return journal.ErrUnknown }

// watched calls what may run for hours, and tells its progress.
func (c *client) watched(ctx context.Context, path string, body, into any, progress func(api.Progress)) error {
	resp, err := c.do(ctx, http.MethodPost, path, nil, body, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p api.Problem
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil || p.Error == "" {
			p.Error = resp.Status
		}
		return problem(resp.StatusCode, p)
	}
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	for scanner.Scan() {
		var line api.Line
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		switch {
		case line.Progress != nil:
			if progress != nil {
				progress(*line.Progress)
			}
		case line.Error != nil:
			return problem(line.Code, *line.Error)
		default:
			return json.Unmarshal(line.Result, into)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return errors.New("the daemon ended before it answered")
}

func (c *client) Status(ctx context.Context) (out api.Status, err error) {
	err = c.call(ctx, http.MethodGet, "/api/v1/status", nil, nil, &out)
	return out, err
}

func (c *client) Behind(ctx context.Context, route, destination, after string, limit int) (out api.Behind, err error) {
	q := url.Values{"behind": {"true"}, "route": {route}, "destination": {destination}, "after": {after}, "limit": {strconv.Itoa(limit)}}
	err = c.call(ctx, http.MethodGet, "/api/v1/status", q, nil, &out)
	return out, err
}

// chosenQuery is jobQuery for what changes jobs: the command has asked for
// --all where there is no filter.
func chosenQuery(f journal.JobFilter) url.Values {
	q := jobQuery(f)
	q.Set("all", "true")
	return q
}

func jobQuery(f journal.JobFilter) url.Values {
	q := url.Values{
		"id": f.IDs, "route": {f.Route}, "destination": {f.Destination}, "repository": {f.Repository},
		"tag": {f.Tag}, "error": {f.ErrorKind}, "after": {f.After},
	}
	for _, s := range f.States {
		q.Add("state", string(s))
	}
	if f.Lane != nil {
		q.Set("lane", f.Lane.String())
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

func (c *client) Jobs(ctx context.Context, f journal.JobFilter) (out api.Jobs, err error) {
	err = c.call(ctx, http.MethodGet, "/api/v1/jobs", jobQuery(f), nil, &out)
	return out, err
}

func (c *client) Job(ctx context.Context, id string) (out api.Job, err error) {
	err = c.call(ctx, http.MethodGet, "/api/v1/jobs/"+url.PathEscape(id), nil, nil, &out)
	return out, err
}

func (c *client) Retry(ctx context.Context, f journal.JobFilter, _ string) (out api.Changed, err error) {
	err = c.call(ctx, http.MethodPost, "/api/v1/jobs/retry", chosenQuery(f), nil, &out)
	return out, err
}

func (c *client) Cancel(ctx context.Context, f journal.JobFilter, _ string) (out api.Changed, err error) {
	err = c.call(ctx, http.MethodPost, "/api/v1/jobs/cancel", chosenQuery(f), nil, &out)
	return out, err
}

func (c *client) Findings(ctx context.Context, f journal.FindingFilter) (out api.Findings, err error) {
	q := url.Values{"id": f.IDs, "kind": {string(f.Kind)}, "route": {f.Route}, "registry": {f.Registry}, "after": {f.After}}
	if f.Acknowledged != nil {
		q.Set("acknowledged", strconv.FormatBool(*f.Acknowledged))
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	err = c.call(ctx, http.MethodGet, "/api/v1/findings", q, nil, &out)
	return out, err
}

func (c *client) Acknowledge(ctx context.Context, ids []string, _ string) (out api.Changed, err error) {
	err = c.call(ctx, http.MethodPost, "/api/v1/findings/ack", nil, map[string][]string{"ids": ids}, &out)
	return out, err
}

func (c *client) History(ctx context.Context, reference string, at *time.Time) (out api.History, err error) {
	q := url.Values{"reference": {reference}}
	if at != nil {
		q.Set("at", at.UTC().Format(time.RFC3339))
	}
	err = c.call(ctx, http.MethodGet, "/api/v1/history", q, nil, &out)
	return out, err
}

func (c *client) SetPaused(ctx context.Context, route string, paused bool, _ string) (out api.Pauses, err error) {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	err = c.call(ctx, http.MethodPost, "/api/v1/routes/"+url.PathEscape(route)+"/"+verb, nil, nil, &out)
	return out, err
}

func (c *client) Sync(ctx context.Context, request api.SyncRequest, progress func(api.Progress)) (out api.Sync, err error) {
	err = c.watched(ctx, "/api/v1/sync", request, &out, progress)
	return out, err
}

func (c *client) Verify(ctx context.Context, request api.VerifyRequest, progress func(api.Progress)) (out api.Verify, err error) {
	err = c.watched(ctx, "/api/v1/verify", request, &out, progress)
	return out, err
}

func (c *client) Plan(ctx context.Context, routes []string) (out *api.Plan, err error) {
	err = c.read(ctx, http.MethodPost, "/api/v1/plan", nil, map[string][]string{"routes": routes}, func(body io.Reader) error {
		out, err = api.ReadPlan(body, "")
		return err
	})
	return out, err
}

func (c *client) Resolve(ctx context.Context, request api.ResolveRequest, _ string) (out api.Resolved, err error) {
	err = c.call(ctx, http.MethodPost, "/api/v1/resolve", nil, request, &out)
	return out, err
}
