package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

const (
	maxFindings  = 100_000
	findingsTrim = 1000 // how many of the oldest go at once
)

// AddFindings tells findings; equal ones (all but time and message) are one,
// told again.
func (j *Journal) AddFindings(ctx context.Context, list []replicator.Finding) error {
	return j.write(ctx, true, func(b *batch) error {
		for _, f := range list {
			if err := b.tell(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// tell adds a finding, or counts that it was told again; one that a person has
// acknowledged stays so, one that was closed by itself is open again.
func (b *batch) tell(f replicator.Finding) error {
	at := micros(f.At)
	if at == 0 {
		at = b.now
	}
	first := micros(f.FirstAt)
	if first == 0 {
		first = at
	}
	count := int64(max(f.Count, 1))
	var times int64
	err := b.row(sqlTellFinding, []any{sameness(f), b.j.ids.next(b.now), clip(string(f.Kind), 64), at, first, count,
		clip(f.Route, maxName), clip(f.Registry, maxName), clip(f.Repository, maxName), clip(f.Tag, maxName),
		clip(string(f.Digest), maxName), clip(f.Message, maxMessage), clip(f.Hint, maxMessage)}, &times)
	if err != nil {
		return fmt.Errorf("write finding: %w", err)
	}
	if b.totals == nil {
		b.totals = map[string]int64{}
	}
	b.totals[clip(string(f.Kind), 64)] += count
	if times > count {
		return nil
	}
	b.newFindings++
	if b.j.findingCount+b.newFindings <= maxFindings {
		return nil
	}
	gone, err := b.execCount(sqlTrimFindings, findingsTrim)
	if err != nil {
		return fmt.Errorf("trim findings: %w", err)
	}
	b.newFindings -= gone
	return nil
}

// flushTotals adds what was told by kind; these counts outlive the findings.
func (b *batch) flushTotals() error {
	for kind, n := range b.totals {
		if err := b.exec(sqlTellTotal, kind, n); err != nil {
			return fmt.Errorf("count findings: %w", err)
		}
	}
	clear(b.totals)
	return nil
}

// sameness is equal for findings that are one.
func sameness(f replicator.Finding) string {
	h := sha256.New()
	for _, part := range []string{string(f.Kind), f.Route, f.Registry, f.Repository, f.Tag, string(f.Digest), f.Hint} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Findings lists findings, newest first, and where the next page begins, empty
// after the last.
func (j *Journal) Findings(ctx context.Context, f FindingFilter) ([]replicator.Finding, string, error) {
	if len(f.IDs) > 0 {
		list, err := j.findingsByID(ctx, f.IDs)
		return list, "", err
	}
	at, id := int64(math.MaxInt64), int64(math.MaxInt64)
	if f.After != "" {
		var err error
		if at, id, err = parseFindingToken(f.After); err != nil {
			return nil, "", err
		}
	}
	query, args := sqlFindings, []any{at, id}
	for _, c := range []struct{ column, value string }{
		{"kind", string(f.Kind)}, {"route", f.Route}, {"registry", f.Registry},
	} {
		if c.value != "" {
			args = append(args, c.value)
			query += " AND " + c.column + " = $" + strconv.Itoa(len(args))
		}
	}
	if f.Acknowledged != nil {
		op := " AND acknowledged = $"
		if *f.Acknowledged {
			op = " AND acknowledged <> $"
		}
		args = append(args, 0)
		query += op + strconv.Itoa(len(args))
	}
	limit := pageSize(f.Limit, defaultPage)
	args = append(args, limit+1)
	query += " ORDER BY at DESC, id DESC LIMIT $" + strconv.Itoa(len(args))
	list, err := j.findings(ctx, query, args)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(list) > limit {
		list = list[:limit]
		last := list[limit-1]
		next = strconv.FormatInt(last.At.UnixMicro(), 36) + "." + last.ID
	}
	return list, next, nil
}

func parseFindingToken(token string) (at, id int64, err error) {
	left, right, _ := strings.Cut(token, ".")
	if at, err = strconv.ParseInt(left, 36, 64); err != nil {
		return 0, 0, fmt.Errorf("%.64q: %w", token, ErrPage)
	}
	if id, err = parseID(right); err != nil {
		return 0, 0, fmt.Errorf("%.64q: %w", token, ErrPage)
	}
	return at, id, nil
}

func (j *Journal) findings(ctx context.Context, query string, args []any) ([]replicator.Finding, error) {
	var list []replicator.Finding
	err := each(ctx, j.reads, query, args, func(scan scanner) error {
		var f replicator.Finding
		var id, at, first, acknowledged int64
		var kind, named string
		err := scan(&id, &kind, &at, &first, &f.Count, &f.Route, &f.Registry, &f.Repository, &f.Tag, &named,
			&f.Message, &f.Hint, &acknowledged)
		f.ID, f.Kind, f.Digest = formatID(id), replicator.FindingKind(kind), digest.Digest(named)
		f.At, f.FirstAt, f.Acknowledged = fromMicros(at), fromMicros(first), acknowledged != 0
		list = append(list, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	return list, nil
}

func (j *Journal) findingsByID(ctx context.Context, ids []string) ([]replicator.Finding, error) {
	var all []replicator.Finding
	for _, text := range ids {
		id, err := parseID(text)
		if err != nil {
			return nil, fmt.Errorf("finding: %w: %w", ErrUnknown, err)
		}
		list, err := j.findings(ctx, sqlFindingByID, []any{id})
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("finding %s: %w", text, ErrUnknown)
		}
		all = append(all, list...)
	}
	return all, nil
}

// FindingTotals counts by kind how often anything was ever told.
func (j *Journal) FindingTotals(ctx context.Context) (map[replicator.FindingKind]int64, error) {
	totals := map[replicator.FindingKind]int64{}
	err := each(ctx, j.reads, sqlFindingTotals, nil, func(scan scanner) error {
		var kind string
		var n int64
		err := scan(&kind, &n)
		totals[replicator.FindingKind(kind)] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read finding totals: %w", err)
	}
	return totals, nil
}

// Acknowledge marks findings as seen by a person, with an audit entry, and
// says how many were not before; acknowledging a refusal holds its job.
// ErrUnknown where one of the ids is none, and nothing is changed.
func (j *Journal) Acknowledge(ctx context.Context, ids []string, actor string) (int, error) {
	var n int
	err := j.write(ctx, true, func(b *batch) error {
		n = 0
		for _, text := range ids {
			id, err := parseID(text)
			if err != nil {
				return fmt.Errorf("finding: %w: %w", ErrUnknown, err)
			}
			fresh, err := b.acknowledge(id)
			if err != nil {
				return fmt.Errorf("acknowledge finding %s: %w", text, err)
			}
			n += int(fresh)
		}
		return b.audit(AuditEntry{Actor: actor, Action: "finding.acknowledge", Target: strings.Join(ids, " ")})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// CloseFindings acknowledges findings whose cause is gone, with an audit entry
// that says why; told again, they are open again. Ids that are none, or were
// acknowledged before, are left out.
func (j *Journal) CloseFindings(ctx context.Context, ids []string, why string) error {
	if len(ids) == 0 {
		return nil
	}
	return j.write(ctx, true, func(b *batch) error {
		closed := make([]string, 0, len(ids))
		for _, text := range ids {
			id, err := parseID(text)
			if err != nil {
				continue
			}
			n, err := b.execCount(sqlCloseFinding, id)
			if err != nil {
				return fmt.Errorf("close finding %s: %w", text, err)
			}
			if n > 0 {
				closed = append(closed, text)
			}
		}
		if len(closed) == 0 {
			return nil
		}
		return b.audit(AuditEntry{Actor: "twinport", Action: "finding.close", Target: strings.Join(closed, " "), Detail: why})
	})
}

func (b *batch) acknowledge(id int64) (int64, error) {
	var kind, registry, repository, tag, named string
	var acknowledged int64
	found := false
	err := b.each(sqlFindingByID, []any{id}, func(scan scanner) error {
		found = true
		var skip any
		return scan(&skip, &kind, &skip, &skip, &skip, &skip, &registry, &repository, &tag, &named, &skip, &skip, &acknowledged)
	})
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, ErrUnknown
	case acknowledged != 0:
		return 0, nil
	}
	if err := b.exec(sqlAcknowledge, id); err != nil {
		return 0, err
	}
	switch replicator.FindingKind(kind) {
	case replicator.FindingRefused, replicator.FindingUnsupported, replicator.FindingSourceIncomplete, replicator.FindingCollision,
		replicator.FindingConflict: // of a tag that may not be moved
	default:
		return 1, nil
	}
	if err := b.flush(); err != nil {
		return 0, err
	}
	return 1, b.holdRefused(registry, repository, tag, named)
}

// holdRefused holds the jobs a refusal's finding is about: it names the
// destination, by the config's name.
func (b *batch) holdRefused(registry, repository, tag, named string) error {
	ref := tag
	if ref == "" {
		ref = named
	}
	var ids []int64
	for _, r := range b.cat.registries {
		if r.name != registry {
			continue
		}
		err := b.each(sqlRefusedRows, []any{r.id, repository, ref}, func(scan scanner) error {
			var id int64
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, id := range ids {
		r, err := b.byNumber(id)
		if err != nil {
			return err
		}
		// A finding may name what is wrong below the job's digest: then the
		// job's error names it, too.
		if r == nil || named != "" && r.digest != "" && r.digest != named && !strings.Contains(r.err.message, named) {
			continue
		}
		r.state, r.heldBy, r.heldDigest = held, heldByPerson, r.digest
		b.change(r)
	}
	return nil
}
