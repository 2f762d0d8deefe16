package journal

import (
	"context"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

// Late says that a tag's move which began under a lease that is lost by now may
// have been made all the same, or may still be: whoever has the tag by now may
// have moved it on since. The tag is looked at again, and what was to be written
// counts as no push of somebody else's. It needs no lease.
func (j *Journal) Late(ctx context.Context, job replicator.Job, intent replicator.Intent, f replicator.Finding) error {
	again := job
	again.Digest, again.Lane = "", replicator.LaneWebhook
	desired, err := prepareAll([]replicator.Job{again})
	if err != nil {
		return fmt.Errorf("look at a tag again: %w", err)
	}
	return j.write(ctx, true, func(b *batch) error {
		if _, err := b.accept(&desired[0]); err != nil {
			return fmt.Errorf("look at a tag again: %w", err)
		}
		src, err := b.registry(job.Source.Identity, "")
		if err != nil {
			return err
		}
		dst, err := b.registry(job.Destination.Identity, "")
		if err != nil {
			return err
		}
		key := jobKey{dst: dst, dstRepository: job.Destination.Repository, ref: job.Reference(), src: src, srcRepository: job.Source.Repository}
		base, intents, err := b.base(key)
		if err != nil {
			return err
		}
		// From what was written late to what both sides have shared since.
		intents = append(intents, intentText{At: intent.At, Old: string(intent.New), New: base})
		if len(intents) > maxIntents {
			intents = intents[len(intents)-maxIntents:]
		}
		if err := b.saveBase(key, base, intents); err != nil {
			return err
		}
		return b.tell(f)
	})
}
