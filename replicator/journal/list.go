package journal

import (
	"context"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

const (
	defaultPage = 100
	maxPage     = 1000
	pageRows    = 500 // rows changed in one go
)

func pageSize(limit, otherwise int) int {
	if limit <= 0 {
		return otherwise
	}
	return min(limit, maxPage)
}

// Job is one job, ended or not; ErrUnknown where there is none.
func (j *Journal) Job(ctx context.Context, id string) (replicator.Job, error) {
	number, err := parseID(id)
	if err != nil {
		return replicator.Job{}, fmt.Errorf("job: %w: %w", ErrUnknown, err)
	}
	var jobs []replicator.Job
	err = j.snapshot(ctx, func(in *snapshot) error {
		jobs, err = in.jobs(ctx, []int64{number})
		return err
	})
	if err != nil {
		return replicator.Job{}, err
	}
	if len(jobs) == 0 {
		return replicator.Job{}, fmt.Errorf("job %s: %w", id, ErrUnknown)
	}
	return jobs[0], nil
}

// Jobs lists jobs, newest first, and where the next page begins, empty after
// the last. A page is as of one commit: a job that moves meanwhile is on it
// once, in one state.
func (j *Journal) Jobs(ctx context.Context, f JobFilter) ([]replicator.Job, string, error) {
	f.Limit = pageSize(f.Limit, defaultPage)
	jobs, next, err := listJobs(ctx, j, f, true, func(in *snapshot, ids []int64) ([]replicator.Job, error) { return in.jobs(ctx, ids) })
	if err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	return jobs, next, nil
}

// Behind lists what is not proven at a route's destination, oldest job first,
// and where the next page begins, empty after the last. A page is as of one
// commit.
func (j *Journal) Behind(ctx context.Context, route, destination, after string, limit int) ([]Behind, string, error) {
	f := JobFilter{Route: route, Destination: destination, After: after, Limit: pageSize(limit, defaultPage),
		States: []replicator.JobState{replicator.Waiting, replicator.Running, replicator.Failed, replicator.Refused}}
	list, next, err := listJobs(ctx, j, f, false, func(in *snapshot, ids []int64) ([]Behind, error) {
		jobs, err := in.jobs(ctx, ids)
		if err != nil {
			return nil, err
		}
		var page []Behind
		for _, job := range jobs {
			wants, err := in.behind(ctx, job, route, destination)
			if err != nil {
				return nil, err
			}
			page = append(page, wants...)
		}
		return page, nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("list behind: %w", err)
	}
	return list, next, nil
}

// behind tells of one job for each that wants it.
func (in *snapshot) behind(ctx context.Context, job replicator.Job, route, destination string) (list []Behind, err error) {
	for _, w := range job.Wants {
		if route != "" && w.Route != route || destination != "" && w.Destination != destination {
			continue
		}
		at := wantedAt(job, w)
		rec, _, err := record(ctx, in.db, in.catalog, at.Identity, at.Repository, job.Reference())
		if err != nil {
			return nil, err
		}
		list = append(list, Behind{Route: w.Route, Destination: w.Destination, Repository: at.Repository,
			Tag: job.Tag, Wanted: job.Digest, Proven: rec.Digest, PushedAt: job.PushedAt,
			BehindSince: job.BehindSince, State: job.State, Error: job.Error, ID: job.ID})
	}
	return list, nil
}

// wantedAt is the end of the job at which a route wants the tag.
func wantedAt(job replicator.Job, w replicator.Want) replicator.Place {
	if job.Flow == replicator.TwoWay && job.Source.Registry == w.Destination {
		return job.Source
	}
	return job.Destination
}
