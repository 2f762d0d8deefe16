package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
)

// progressEvery is how often a sync or verify tells how far it is.
const progressEvery = 200 * time.Millisecond

// An Operator answers the API for a daemon.
type Operator struct {
	*Daemon
	// About is the process; nil where a command answers for itself.
	About *api.DaemonStatus
}

var _ api.Operator = Operator{}

// Status implements api.Operator.
func (o Operator) Status(ctx context.Context) (api.Status, error) {
	statuses, err := o.Statuses(ctx)
	if err != nil {
		return api.Status{}, err
	}
	out := api.Status{Daemon: o.About, Routes: []api.RouteStatus{}}
	for _, s := range statuses {
		out.Routes = append(out.Routes, showStatus(s, o.About != nil))
	}
	return out, nil
}

func showStatus(s Status, probed bool) api.RouteStatus {
	out := api.RouteStatus{
		Route: s.Route.Name, Source: s.Route.From, Destination: s.Destination, Lag: api.Seconds(s.Lag),
		State: string(s.State), Reason: s.Reason,
		Waiting: s.Waiting, Running: s.Running, Failed: s.Failed, Refused: s.Refused, Held: s.Held,
		Proven: s.Proven, Unconfirmed: s.Unconfirmed, Remaining: s.Remaining,
		LastSweep: api.Time(s.LastSweep), LastProof: api.Time(s.LastProof), OldestProof: api.Time(s.OldestProof),
		Paused: s.Paused, Owner: s.Route.Owner, Contact: s.Route.Contact,
	}
	if s.Route.Deletes.Mirror {
		out.Deletions = &api.Deletions{Waiting: s.DeletesWaiting, Held: s.DeletesHeld}
	}
	if s.Route.RPO > 0 {
		rpo := api.Seconds(s.Route.RPO)
		out.RPO = &rpo
	}
	if probed {
		sourceUp, destinationUp := !s.SourceDown, !s.DestDown
		out.SourceUp, out.DestinationUp = &sourceUp, &destinationUp
	}
	return out
}

// Behind implements api.Operator.
func (o Operator) Behind(ctx context.Context, route, destination, after string, limit int) (api.Behind, error) {
	if err := o.names(route, destination); err != nil {
		return api.Behind{}, err
	}
	behind, next, err := o.journal.Behind(ctx, route, destination, after, limit)
	if err != nil {
		return api.Behind{}, usage(err)
	}
	out := api.Behind{Behind: []api.BehindTag{}, Next: next}
	for _, b := range behind {
		out.Behind = append(out.Behind, api.ShowBehind(b))
	}
	return out, nil
}

// Jobs implements api.Operator.
func (o Operator) Jobs(ctx context.Context, filter journal.JobFilter) (api.Jobs, error) {
	jobs, next, err := o.journal.Jobs(ctx, filter)
	if err != nil {
		return api.Jobs{}, usage(err)
	}
	if len(jobs) == 0 { // those of a route that the config had once are shown
		if err := o.names(filter.Route, filter.Destination); err != nil {
			return api.Jobs{}, err
		}
	}
	out := api.Jobs{Jobs: []api.Job{}}
	if next != "" {
		out.Next = &next
	}
	for _, j := range jobs {
		out.Jobs = append(out.Jobs, api.ShowJob(j))
	}
	return out, nil
}

// Job implements api.Operator.
func (o Operator) Job(ctx context.Context, id string) (api.Job, error) {
	j, err := o.journal.Job(ctx, id)
	if err != nil {
		return api.Job{}, err
	}
	return api.ShowJob(j), nil
}

// Retry implements api.Operator.
func (o Operator) Retry(ctx context.Context, filter journal.JobFilter, actor string) (api.Changed, error) {
	n, err := o.journal.Retry(ctx, filter, actor)
	if err == nil && n == 0 {
		err = o.names(filter.Route, filter.Destination)
	}
	return api.Changed{Changed: n}, err
}

// Cancel implements api.Operator.
func (o Operator) Cancel(ctx context.Context, filter journal.JobFilter, actor string) (api.Changed, error) {
	n, err := o.journal.Cancel(ctx, filter, actor)
	if err == nil && n == 0 {
		err = o.names(filter.Route, filter.Destination)
	}
	return api.Changed{Changed: n}, err
}

// Findings implements api.Operator.
func (o Operator) Findings(ctx context.Context, filter journal.FindingFilter) (api.Findings, error) {
	findings, next, err := o.journal.Findings(ctx, filter)
	if err != nil {
		return api.Findings{}, usage(err)
	}
	if len(findings) == 0 {
		if err := o.names(filter.Route, filter.Registry); err != nil {
			return api.Findings{}, err
		}
	}
	out := api.Findings{Findings: []api.Finding{}}
	if next != "" {
		out.Next = &next
	}
	for _, f := range findings {
		out.Findings = append(out.Findings, api.ShowFinding(f))
	}
	return out, nil
}

// Acknowledge implements api.Operator.
func (o Operator) Acknowledge(ctx context.Context, ids []string, actor string) (api.Changed, error) {
	n, err := o.journal.Acknowledge(ctx, ids, actor)
	o.suspects.forget()
	return api.Changed{Changed: n}, err
}

// History implements api.Operator.
func (o Operator) History(ctx context.Context, reference string, at *time.Time) (api.History, error) {
	place, tag, err := o.place(reference)
	if err != nil {
		return api.History{}, err
	}
	states, err := o.journal.History(ctx, place.Identity, place.Repository, tag, at, 1000)
	if err != nil {
		return api.History{}, err
	}
	return api.ShowHistory(place.Registry, place.Repository, tag, states), nil
}

// place reads REGISTRY/REPOSITORY:TAG.
func (o Operator) place(reference string) (replicator.Place, string, error) {
	const hint = "write it as REGISTRY/REPOSITORY:TAG, with the config's name of the registry"
	registry, rest, ok := strings.Cut(reference, "/")
	i := strings.LastIndex(rest, ":")
	if !ok || i < 0 {
		return replicator.Place{}, "", &api.UsageError{Message: fmt.Sprintf("%.200q names no tag of a registry", reference), Hint: hint}
	}
	repository, tag := rest[:i], rest[i+1:]
	if err := errors.Join(oci.CheckRepository(repository), oci.CheckTag(tag)); err != nil {
		return replicator.Place{}, "", &api.UsageError{Message: err.Error(), Hint: hint}
	}
	reg, ok := o.State().Registries[registry]
	if !ok {
		return replicator.Place{}, "", unknownRegistry(registry, hint)
	}
	return replicator.Place{Registry: registry, Identity: reg.Client.Identity(), Repository: repository}, tag, nil
}

// names refuses a filter's route and registry that the config does not have,
// where they are given.
func (o Operator) names(route, registry string) error {
	if _, ok := o.State().Rules.Route(route); route != "" && !ok {
		return unknownRoute(route)
	}
	if _, ok := o.State().Registries[registry]; registry != "" && !ok {
		return unknownRegistry(registry, "`twinport status` lists the destinations")
	}
	return nil
}

func unknownRegistry(name, hint string) error {
	return &api.UsageError{Message: fmt.Sprintf("the config has no registry %.80q", name), Hint: hint}
}

func unknownRoute(name string) error {
	return &api.UsageError{Message: fmt.Sprintf("the config has no route %.80q", name), Hint: "`twinport status` lists the routes"}
}

// SetPaused implements api.Operator.
func (o Operator) SetPaused(ctx context.Context, route string, paused bool, actor string) (api.Pauses, error) {
	if _, ok := o.State().Rules.Route(route); !ok {
		return api.Pauses{}, unknownRoute(route)
	}
	change := o.journal.Resume
	if paused {
		change = o.journal.Pause
	}
	if err := change(ctx, route, actor); err != nil {
		return api.Pauses{}, err
	}
	return api.Pauses{Route: route, Paused: paused}, nil
}

// Plan implements api.Operator.
func (o Operator) Plan(ctx context.Context, names []string) (*api.Plan, error) {
	out := api.NewPlan("")
	requests, err := o.Daemon.Plan(ctx, names, func(a Action) error {
		shown := api.Action{
			Route: a.Route, Destination: a.Destination, Repository: a.Repository, DestinationRepository: a.DestinationRepository,
			Tag: a.Tag, Action: a.Action, Reason: a.Reason, Bytes: a.Bytes,
		}
		if a.Digest != "" {
			d := a.Digest.String()
			shown.Digest = &d
		}
		return out.Add(shown)
	})
	if err != nil {
		return nil, errors.Join(usage(err), out.Close())
	}
	out.Requests = requests
	return out, nil
}

// Sync implements api.Operator.
func (o Operator) Sync(ctx context.Context, request api.SyncRequest, progress func(api.Progress)) (api.Sync, error) {
	options := SyncOptions{Routes: request.Routes, Full: request.Full, RetryFor: 2 * time.Minute}
	if request.RetryFor > 0 {
		options.RetryFor = time.Duration(request.RetryFor * float64(time.Second))
	}
	if request.Only != "" {
		repository, tag, _ := strings.Cut(request.Only, ":")
		err := oci.CheckRepository(repository)
		if tag != "" {
			err = errors.Join(err, oci.CheckTag(tag))
		}
		if err != nil {
			return api.Sync{}, &api.UsageError{Message: err.Error(), Hint: "--only takes REPOSITORY or REPOSITORY:TAG of the source"}
		}
		options.OnlyRepository, options.OnlyTag = repository, tag
	}
	stop := o.watch(ctx, options.Routes, progress)
	result, err := o.Daemon.Sync(ctx, options)
	stop()
	out := api.Sync{
		Copied: result.Copied, Moved: result.Moved, Deleted: result.Deleted, Refused: result.Refused, Failed: result.Failed, Bytes: result.Bytes,
		Requests: api.Requests{Source: result.SourceRequests, Destination: result.DestinationRequests},
		Seconds:  api.Seconds(result.Elapsed), Findings: []api.Finding{}, Errors: lines(result.SweepErrors),
	}
	for _, f := range result.Findings {
		out.Findings = append(out.Findings, api.ShowFinding(f))
	}
	return out, usage(err)
}

// Verify implements api.Operator.
func (o Operator) Verify(ctx context.Context, request api.VerifyRequest, progress func(api.Progress)) (api.Verify, error) {
	stop := o.watch(ctx, request.Routes, progress)
	result, err := o.Daemon.Verify(ctx, request.Routes, request.Deep)
	stop()
	out := api.Verify{Checked: result.Checked, Missing: []api.Verified{}, Corrupt: []api.Verified{}, Errors: lines(result.Errors)}
	show := func(list []Verified) []api.Verified {
		shown := []api.Verified{}
		for _, v := range list {
			shown = append(shown, api.Verified{Registry: v.Place.Registry, Repository: v.Place.Repository, Tag: v.Tag, Digest: v.Digest.String()})
		}
		return shown
	}
	out.Missing, out.Corrupt = show(result.Missing), show(result.Corrupt)
	return out, usage(err)
}

// Resolve implements api.Operator.
func (o Operator) Resolve(ctx context.Context, request api.ResolveRequest, actor string) (api.Resolved, error) {
	place, tag, err := o.place(request.Reference)
	if err != nil {
		return api.Resolved{}, err
	}
	if _, ok := o.State().Registries[request.Prefer]; !ok {
		return api.Resolved{}, unknownRegistry(request.Prefer, "--prefer names the registry whose image wins")
	}
	digest, err := o.Daemon.Resolve(ctx, place.Registry, place.Repository, tag, request.Prefer, actor)
	if errors.Is(err, ErrNoConflict) {
		return api.Resolved{}, &api.UsageError{Message: err.Error(), Hint: "`twinport findings list --kind conflict` shows what waits to be settled"}
	}
	return api.Resolved{Reference: request.Reference, Prefer: request.Prefer, Digest: digest.String()}, err
}

// watch tells progress until the function it gives back is called.
func (o Operator) watch(ctx context.Context, names []string, progress func(api.Progress)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	selected, err := routes(o.State(), names)
	if err != nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	before := o.Totals()
	go func() {
		defer close(ended)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			waiting, running, err := o.pending(ctx, selected)
			if err != nil {
				continue
			}
			now := o.Totals()
			progress(api.Progress{
				Waiting: waiting, Running: running, Ended: now.Ended - before.Ended,
				ReadBytes: now.ReadBytes - before.ReadBytes, WrittenBytes: now.WrittenBytes - before.WrittenBytes,
			})
		}
	}()
	return func() { close(done); <-ended }
}

// usage turns what the caller got wrong into a UsageError.
func usage(err error) error {
	switch {
	case errors.Is(err, ErrUnknownRoute):
		return &api.UsageError{Message: err.Error(), Hint: "`twinport status` lists the routes"}
	case errors.Is(err, journal.ErrPage):
		return &api.UsageError{Message: err.Error(), Hint: "`after` takes the `next` of the page before"}
	}
	return err
}

// lines are an error's own lines, nil for none.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
