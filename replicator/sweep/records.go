package sweep

import (
	"context"
	"fmt"

	"github.com/twinport/twinport/replicator"
)

// recordPage is how many records are read at once.
const recordPage = 1000

// recordReader walks a repository's records beside its tags, a page at a time.
type recordReader struct {
	records              Records
	identity, repository string
	after                string
	page                 []replicator.Record
	last                 bool
}

// find gives the record of a tag; tags are to be asked for in byte order.
func (r *recordReader) find(ctx context.Context, tag string) (replicator.Record, bool, error) {
	for {
		for len(r.page) > 0 && r.page[0].Tag < tag {
			r.page = r.page[1:]
		}
		if len(r.page) > 0 {
			return r.page[0], r.page[0].Tag == tag, nil
		}
		if r.last {
			return replicator.Record{}, false, nil
		}
		page, err := r.records.Records(ctx, r.identity, r.repository, r.after, recordPage)
		if err != nil {
			return replicator.Record{}, false, fmt.Errorf("records of %s %s: %w", r.identity, r.repository, err)
		}
		r.last = len(page) < recordPage
		if len(page) > 0 {
			if page[len(page)-1].Tag <= r.after {
				return replicator.Record{}, false, fmt.Errorf("records of %s %s do not go on after %q", r.identity, r.repository, r.after)
			}
			r.after = page[len(page)-1].Tag
		}
		r.page = page
	}
}
