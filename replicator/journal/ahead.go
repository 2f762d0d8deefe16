package journal

import "fmt"

// A wanted is what the requests of a batch will read: where each read is a
// round trip, they are made together.
type wanted struct {
	keys    []jobKey
	ids     []int64
	states  []tagKey
	digests []locationKey
}

// Each looks up key by key, in an index: LATERAL with OFFSET leaves no choice,
// whatever is known of the tables' sizes when the plan is made.
const (
	pgJobsByKey = `SELECT j.* FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[])
		AS k (k_dst, k_dst_repository, k_ref, k_src, k_src_repository) CROSS JOIN LATERAL (SELECT ` + jobColumns + ` FROM jobs
		WHERE dst = k_dst AND dst_repository = k_dst_repository AND ref = k_ref AND ended = 0
		AND src = k_src AND src_repository = k_src_repository OFFSET 0) j`
	pgJobsByID  = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ANY ($1::bigint[])`
	pgTagStates = `SELECT k.registry, k.repository, k.tag, s.at, s.digest, s.n
		FROM unnest($1::bigint[], $2::text[], $3::text[]) AS k (registry, repository, tag)
		CROSS JOIN LATERAL (SELECT at, digest, n FROM tag_states t WHERE t.registry = k.registry
		AND t.repository = k.repository AND t.tag = k.tag ORDER BY at DESC, id DESC LIMIT 1) s`
	pgLocations = `SELECT k.registry, k.digest, l.repository FROM unnest($1::bigint[], $2::text[]) AS k (registry, digest)
		CROSS JOIN LATERAL (SELECT repository FROM locations t WHERE t.registry = k.registry AND t.digest = k.digest
		ORDER BY at DESC, repository OFFSET 0) l`
	pgEpochs     = `SELECT id, epoch FROM replicas`
	pgAnyRefusal = `SELECT EXISTS (SELECT 1 FROM refusals)::int::bigint, EXISTS (SELECT 1 FROM departures)::int::bigint`
)

// prepare brings a shared journal's batch up to what others have committed,
// and reads ahead for its requests. Each question is a statement of its own,
// and so sees what was committed until our turn had come.
func (b *batch) prepare(requests []*request) error {
	s := b.j.shared
	if s == nil {
		return nil
	}
	var version int64
	asks := question{pgVersion, nil, func(scan scanner) error { return scan(&version) }}
	if err := s.session.all(append([]question{asks}, b.questions(requests)...)); err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	if version == b.cat.version {
		return nil
	}
	c, err := readCatalog(func(query string, f func(scanner) error) error { return b.each(query, nil, f) })
	if err != nil {
		return err
	}
	c.version = version
	b.j.catalog.Store(c)
	// Whoever changed it may have voided what we believe saved.
	clear(b.j.located)
	// What was read went by the numbers of another catalog.
	*b = *b.j.newBatch(b.ctx)
	if err := s.session.all(b.questions(requests)); err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	return nil
}

// questions are what the requests of a batch will ask.
func (b *batch) questions(requests []*request) []question {
	for _, r := range requests {
		if r.ahead != nil {
			r.ahead(b)
		}
	}
	w := &b.wanted
	var questions []question
	if len(w.keys) > 0 || len(w.ids) > 0 {
		questions = append(questions, question{pgEpochs, nil, func(scan scanner) error {
			var id string
			var epoch int64
			err := scan(&id, &epoch)
			if b.epochs == nil {
				b.epochs = map[string]int64{}
			}
			b.epochs[id] = epoch
			return err
		}}, question{pgAnyRefusal, nil, func(scan scanner) error {
			var refusals, departures int64
			err := scan(&refusals, &departures)
			b.anyRefusal, b.anyDeparted = 1+int(refusals), 1+int(departures)
			return err
		}})
	}
	if len(w.keys) > 0 {
		questions = append(questions, b.aheadKeys())
	}
	if len(w.ids) > 0 {
		questions = append(questions, question{pgJobsByID, []any{w.ids}, b.keepRow})
	}
	if len(w.states) > 0 {
		questions = append(questions, b.aheadStates())
	}
	if len(w.digests) > 0 {
		questions = append(questions, b.aheadLocations())
	}
	return questions
}

func (b *batch) keepRow(scan scanner) error {
	r, err := scanRow(scan)
	if err == nil {
		b.remember(r)
	}
	return err
}

func (b *batch) aheadKeys() question {
	n := len(b.wanted.keys)
	dst, src := make([]int64, n), make([]int64, n)
	dstRepository, ref, srcRepository := make([]string, n), make([]string, n), make([]string, n)
	for i, k := range b.wanted.keys {
		dst[i], dstRepository[i], ref[i], src[i], srcRepository[i] = k.dst, k.dstRepository, k.ref, k.src, k.srcRepository
		b.byKey[k] = nil // but for those that are found
	}
	return question{pgJobsByKey, []any{dst, dstRepository, ref, src, srcRepository}, b.keepRow}
}

func (b *batch) aheadStates() question {
	n := len(b.wanted.states)
	registry, repository, tag := make([]int64, n), make([]string, n), make([]string, n)
	if b.tagStates == nil {
		b.tagStates = make(map[tagKey]lastState, n)
	}
	for i, k := range b.wanted.states {
		registry[i], repository[i], tag[i] = k.registry, k.repository, k.tag
		b.tagStates[k] = lastState{}
	}
	return question{pgTagStates, []any{registry, repository, tag}, func(scan scanner) error {
		var k tagKey
		var last lastState
		err := scan(&k.registry, &k.repository, &k.tag, &last.at, &last.digest, &last.n)
		b.tagStates[k] = last
		return err
	}}
}

func (b *batch) aheadLocations() question {
	n := len(b.wanted.digests)
	registry, digest := make([]int64, n), make([]string, n)
	b.held = make(map[locationKey][]string, n)
	for i, k := range b.wanted.digests {
		registry[i], digest[i] = k.registry, k.digest
		b.held[k] = []string{}
	}
	return question{pgLocations, []any{registry, digest}, func(scan scanner) error {
		var k locationKey
		var repository string
		err := scan(&k.registry, &k.digest, &repository)
		b.held[k] = append(b.held[k], repository)
		return err
	}}
}

// announce tells other replicas, with the commit, what they have to know of it.
func (b *batch) announce() error {
	if b.j.shared == nil {
		return nil
	}
	if b.catChanged {
		if err := b.exec(pgChanged); err != nil {
			return err
		}
	}
	if b.due {
		return b.exec(pgNotify, b.j.shared.db.name)
	}
	return nil
}

// willAccept says what accepting an intake reads.
func (b *batch) willAccept(desired []desire, in Intake) {
	for i := range desired {
		d := &desired[i]
		dst, known := b.cat.identities[d.dst.Identity]
		src, too := b.cat.identities[d.src.Identity]
		if known && too {
			b.wanted.keys = append(b.wanted.keys, jobKey{dst: dst, dstRepository: d.dst.Repository, ref: d.ref,
				src: src, srcRepository: d.src.Repository})
		}
	}
	b.willAddStates(in)
}

func (b *batch) willAddStates(in Intake) {
	for _, s := range in.History {
		if id, known := b.cat.identities[s.Place.Identity]; known {
			b.wanted.states = append(b.wanted.states, tagKey{id, s.Place.Repository, s.Tag})
		}
	}
}

// willFinish says what finishing jobs reads.
func (b *batch) willFinish(outcomes []Outcome) {
	for i := range outcomes {
		o := &outcomes[i]
		if id, err := parseID(o.ID); err == nil {
			b.wanted.ids = append(b.wanted.ids, id)
		}
		b.willAddStates(Intake{History: o.History})
		for _, l := range o.Locations {
			id, known := b.cat.identities[l.Place.Identity]
			key := locationKey{registry: id, digest: clip(string(l.Digest), maxName)}
			if _, lately := b.j.located[locationKey{id, l.Place.Repository, key.digest}]; known && !lately {
				b.wanted.digests = append(b.wanted.digests, key)
			}
		}
	}
}
