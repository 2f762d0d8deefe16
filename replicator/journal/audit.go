package journal

import (
	"context"
	"fmt"
)

// Audit writes down who did what.
func (j *Journal) Audit(ctx context.Context, e AuditEntry) error {
	return j.write(ctx, true, func(b *batch) error { return b.audit(e) })
}

func (b *batch) audit(e AuditEntry) error {
	at := micros(e.At)
	if at == 0 {
		at = b.now
	}
	err := b.exec(sqlAddAudit, b.j.ids.next(b.now), at, clip(e.Actor, maxName), clip(e.Action, maxName),
		clip(e.Target, maxMessage), clip(e.Detail, maxMessage))
	if err != nil {
		return fmt.Errorf("write audit entry: %w", err)
	}
	return nil
}

// Audits lists what was done, newest first; limit 0 means 100.
func (j *Journal) Audits(ctx context.Context, limit int) ([]AuditEntry, error) {
	var list []AuditEntry
	err := each(ctx, j.reads, sqlAudits, []any{pageSize(limit, defaultPage)}, func(scan scanner) error {
		var e AuditEntry
		var at int64
		err := scan(&at, &e.Actor, &e.Action, &e.Target, &e.Detail)
		e.At = fromMicros(at)
		list = append(list, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read audit entries: %w", err)
	}
	return list, nil
}
