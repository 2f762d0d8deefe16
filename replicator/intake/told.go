package intake

import (
	"time"

	"github.com/twinport/twinport/replicator"
)

// Told checks what a queue's messages say as a webhook's is checked: names
// inside the registry alone, what cannot be used as a finding and a sweep.
func (registry Registry) Told(d replicator.Decoded, now time.Time) (events []replicator.Event, findings []replicator.Finding, sweepDue []string) {
	if d.Ping {
		return nil, nil, nil
	}
	now = now.UTC()
	events, _, refused := registry.check(d, now)
	if refused.n > 0 {
		findings = []replicator.Finding{registry.unusable(refused.message(), now)}
		sweepDue = []string{registry.Name}
	}
	return events, findings, sweepDue
}
