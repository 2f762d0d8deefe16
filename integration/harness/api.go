package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A RouteStatus is one line of status.
type RouteStatus struct {
	Route       string
	Destination string
	Lag         *float64 // seconds
	RPO         *float64 // seconds
	State       string
	Waiting     int
	Running     int
	Failed      int
	Refused     int
	Held        int
	Proven      int
	Unconfirmed int
	Remaining   *int
	LastSweep   *time.Time
	LastProof   *time.Time
	Paused      bool
}

// A Status is what `status` tells.
type Status struct {
	Daemon json.RawMessage
	Routes []RouteStatus
	Behind []Behind
}

// A Behind is one tag that is not yet proven.
type Behind struct {
	Route, Destination, Repository, Tag, Wanted, Proven, Why string
	PushedAt                                                 *time.Time
}

// A Job is one line of `jobs list`.
type Job struct {
	ID, Route, Destination, Repository, Tag, Digest, State, Lane string
	Attempts                                                     int
	NextAttempt, PushedAt                                        *time.Time
	Error                                                        *struct{ Kind, Message string }
}

// A Finding is one line of `findings list`.
type Finding struct {
	ID, Kind, Route, Registry, Repository, Tag, Digest, Message, Hint string
	At                                                                *time.Time
	Acknowledged                                                      bool
}

// Status asks the API.
func (d *Daemon) Status(ctx context.Context) (Status, error) {
	var s Status
	err := d.api(ctx, "/api/v1/status", &s)
	return s, err
}

// Jobs asks the API; query is as in a URL, without "?".
func (d *Daemon) Jobs(ctx context.Context, query string) ([]Job, error) {
	var page struct {
		Jobs []Job
		Next string
	}
	err := d.api(ctx, "/api/v1/jobs?"+query, &page)
	return page.Jobs, err
}

// Findings asks the API.
func (d *Daemon) Findings(ctx context.Context) ([]Finding, error) {
	var page struct{ Findings []Finding }
	err := d.api(ctx, "/api/v1/findings", &page)
	return page.Findings, err
}

func (d *Daemon) api(ctx context.Context, path string, into any) error {
	raw, err := d.get(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, clip(raw, 500))
	}
	return nil
}

// Route finds a line of status.
func (s Status) Route(route, destination string) (RouteStatus, error) {
	for _, r := range s.Routes {
		if r.Route == route && r.Destination == destination {
			return r, nil
		}
	}
	return RouteStatus{}, fmt.Errorf("status has no line for %s to %s: %+v", route, destination, s.Routes)
}

// WaitStatus waits until the line of status for (route, destination) is as wanted.
func (d *Daemon) WaitStatus(route, destination, what string, deadline time.Duration, ok func(RouteStatus) bool) RouteStatus {
	d.t.Helper()
	var line RouteStatus
	WaitFor(d.t, fmt.Sprintf("%s to %s: %s", route, destination, what), deadline, func(ctx context.Context) error {
		s, err := d.Status(ctx)
		if err != nil {
			return err
		}
		if line, err = s.Route(route, destination); err != nil {
			return err
		}
		if !ok(line) {
			return fmt.Errorf("status is %s", line)
		}
		return nil
	})
	return line
}

func (r RouteStatus) String() string {
	raw, _ := json.Marshal(r)
	return string(raw)
}

// Settled tells whether nothing is waiting, running, failed or refused, and
// nothing is behind.
func (r RouteStatus) Settled() bool {
	return r.Waiting == 0 && r.Running == 0 && r.Failed == 0 && r.Refused == 0 && r.Lag != nil && *r.Lag == 0
}

// WaitSettled waits until every line of status is settled.
func (d *Daemon) WaitSettled(deadline time.Duration) {
	d.t.Helper()
	WaitFor(d.t, "all to be proven", deadline, func(ctx context.Context) error {
		s, err := d.Status(ctx)
		if err != nil {
			return err
		}
		if len(s.Routes) == 0 {
			return fmt.Errorf("status has no routes")
		}
		for _, r := range s.Routes {
			if !r.Settled() {
				return fmt.Errorf("not settled: %s", r)
			}
		}
		return nil
	})
}

// WaitFinding waits for a finding of one of the kinds about the tag (any where empty).
func (d *Daemon) WaitFinding(deadline time.Duration, repository, tag string, kinds ...string) Finding {
	d.t.Helper()
	var found Finding
	WaitFor(d.t, fmt.Sprintf("a finding of %v about %s:%s", kinds, repository, tag), deadline, func(ctx context.Context) error {
		findings, err := d.Findings(ctx)
		if err != nil {
			return err
		}
		for _, f := range findings {
			if slices.Contains(kinds, f.Kind) && (repository == "" || f.Repository == repository) && (tag == "" || f.Tag == tag) {
				found = f
				return nil
			}
		}
		return fmt.Errorf("findings are %+v", findings)
	})
	return found
}

// WaitHas waits until the registry holds the graph under the tag, every blob's
// bytes hashed.
func WaitHas(t T, c *Client, repository, tag string, g *Graph, deadline time.Duration) {
	t.Helper()
	WaitFor(t, fmt.Sprintf("%s/%s:%s", c.Addr, repository, tag), deadline, func(ctx context.Context) error {
		return c.Has(ctx, repository, tag, g, false)
	})
	if err := c.Has(t.Context(), repository, tag, g, true); err != nil {
		t.Fatalf("%v", err)
	}
}
