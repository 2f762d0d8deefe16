package journal

// All statements of the journal, for both engines. Parameters are $1, $2, …;
// times are BIGINT microseconds UTC that callers give; states are the numbers
// of stateCode, and those of partial indexes stand as literals, since a
// parameter would not match the index.
const (
	sqlRegistries = `SELECT id, identity, name, trust FROM registries`
	sqlEdges      = `SELECT id, src, dst, flow, wants FROM edges`

	sqlAddRegistry = `INSERT INTO registries (id, identity, name)
		SELECT COALESCE(MAX(id), 0) + 1, $1, $2 FROM registries WHERE 1 = 1
		ON CONFLICT (identity) DO UPDATE SET name = excluded.name RETURNING id, trust`
	sqlNameRegistry = `UPDATE registries SET name = $1 WHERE id = $2`
	sqlDistrust     = `UPDATE registries SET trust = trust + 1 WHERE id = $1 RETURNING trust`
	sqlAddEdge      = `INSERT INTO edges (id, src, dst, flow, wants)
		SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4 FROM edges WHERE 1 = 1
		ON CONFLICT (src, dst, flow, wants) DO UPDATE SET flow = excluded.flow RETURNING id`
	sqlNames   = `SELECT name, registry FROM names`
	sqlSetName = `INSERT INTO names (name, registry) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET registry = excluded.registry`

	jobColumns = `id, edge, src, src_repository, dst, dst_repository, flow, tag, ref, ended,
		digest, lane, pushed_at, sender_time, behind_since, wants_full, state, attempts,
		first_attempt, next_attempt, error_kind, error_message, error_hint, generation,
		pending_since, claimed_digest, held_by, held_digest, replica, epoch, created_at, updated_at`
	sqlJobByKey = `SELECT ` + jobColumns + ` FROM jobs
		WHERE dst = $1 AND dst_repository = $2 AND ref = $3 AND ended = 0 AND src = $4 AND src_repository = $5`
	sqlJobByID   = `SELECT ` + jobColumns + ` FROM jobs WHERE id = $1`
	sqlInsertJob = `INSERT INTO jobs (` + jobColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
		$11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)`
	sqlUpdateJob = `UPDATE jobs SET edge = $2, digest = $3, lane = $4, pushed_at = $5, sender_time = $6,
		behind_since = $7, wants_full = $8, state = $9, attempts = $10, first_attempt = $11,
		next_attempt = $12, error_kind = $13, error_message = $14, error_hint = $15, generation = $16,
		pending_since = $17, claimed_digest = $18, held_by = $19, held_digest = $20, replica = $21,
		epoch = $22, updated_at = $23, flow = $24 WHERE id = $1`
	sqlEndJob   = `UPDATE jobs SET ended = $2 WHERE id = $1`
	sqlMaxJobID = `SELECT COALESCE(MAX(id), 0) FROM jobs`

	sqlNextEdge = `SELECT edge FROM jobs WHERE state = 0 AND edge > $1 ORDER BY edge LIMIT 1`
	sqlDue      = `SELECT id, next_attempt, src, src_repository, ref FROM jobs
		WHERE state = 0 AND edge = $1 AND lane = $2 AND next_attempt <= $3 AND (next_attempt, id) > ($4, $5)
		ORDER BY next_attempt, id LIMIT $6`
	sqlGroup = `SELECT ` + jobColumns + ` FROM jobs
		WHERE src = $1 AND src_repository = $2 AND ref = $3 AND ended = 0 ORDER BY lane, next_attempt, id`
	sqlMoving = `SELECT 1 FROM jobs WHERE dst = $1 AND dst_repository = $2 AND ref = $3 AND ended = 0 AND state = 1
		UNION ALL SELECT 1 FROM jobs WHERE src = $1 AND src_repository = $2 AND ref = $3 AND ended = 0
		AND state = 1 AND flow = 1 LIMIT 1`
	sqlClaim = `UPDATE jobs SET state = 1, replica = $2, epoch = $3, claimed_digest = $4, pending_since = 0,
		updated_at = $5 WHERE id = $1`
	sqlNextDue = `SELECT next_attempt FROM jobs WHERE state = 0 AND edge = $1 AND lane = $2 AND next_attempt > $3
		ORDER BY next_attempt LIMIT 1`
	sqlWake = `UPDATE jobs SET next_attempt = $3 WHERE id IN (SELECT id FROM jobs
		WHERE state = 0 AND edge = $1 AND lane = $2 AND next_attempt > $3 LIMIT 500)`
	sqlPullIn = `UPDATE jobs SET next_attempt = $4 WHERE id IN (SELECT id FROM jobs
		WHERE state = 0 AND edge = $1 AND lane = $2 AND next_attempt > $3 LIMIT 500)`
	sqlStateIDs = `SELECT id FROM jobs WHERE edge = $1 AND state = $2 AND lane = $3 AND id > $4 ORDER BY id LIMIT $5`

	sqlEpoch      = `SELECT epoch FROM replicas WHERE id = $1`
	sqlRaiseEpoch = `INSERT INTO replicas (id, epoch, until) VALUES ($1, 1, $2)
		ON CONFLICT (id) DO UPDATE SET epoch = replicas.epoch + 1, until = excluded.until RETURNING epoch`
	sqlHeartbeat = `UPDATE replicas SET until = $3 WHERE id = $1 AND epoch = $2`

	recordColumns = `registry, repository, tag, digest, src, src_repository, route, pushed_at, proven_at,
		referrers_at, wrote, bytes, unconfirmed`
	sqlSaveRecord = `INSERT INTO records (registry, repository, ref, tag, digest, src, src_repository, route,
		pushed_at, proven_at, referrers_at, wrote, bytes, unconfirmed, trust)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT (registry, repository, ref) DO UPDATE SET tag = excluded.tag, digest = excluded.digest,
		src = excluded.src, src_repository = excluded.src_repository, route = excluded.route,
		pushed_at = excluded.pushed_at, proven_at = excluded.proven_at, referrers_at = excluded.referrers_at,
		wrote = excluded.wrote, bytes = excluded.bytes, unconfirmed = excluded.unconfirmed, trust = excluded.trust`
	sqlRecord = `SELECT ` + recordColumns + ` FROM records
		WHERE registry = $1 AND repository = $2 AND ref = $3 AND trust = $4`
	sqlRecords = `SELECT ` + recordColumns + ` FROM records
		WHERE registry = $1 AND repository = $2 AND ref > $3 AND trust = $4 AND tag <> '' ORDER BY ref LIMIT $5`
	sqlUntaggedRecords = `SELECT ` + recordColumns + ` FROM records
		WHERE registry = $1 AND repository = $2 AND ref > $3 AND trust = $4 AND tag = '' ORDER BY ref LIMIT $5`
	sqlRecordsOfDigest = `SELECT trust, ` + recordColumns + ` FROM records
		WHERE digest = $1 ORDER BY registry, repository, ref LIMIT $2`
	sqlNextRecordRepository = `SELECT repository FROM records WHERE registry = $1 AND repository > $2
		ORDER BY repository LIMIT 1`
	sqlVoidRecords = `DELETE FROM records WHERE registry = $1 AND repository = $2`
	// The plus keeps the planner from the primary key, of which one column alone would fit.
	sqlVoidLocations = `DELETE FROM locations WHERE +registry = $1 AND repository = $2`
	sqlRouteRecords  = `SELECT ` + recordColumns + ` FROM records
		WHERE route = $1 AND registry = $2 ORDER BY route, registry, trust, proven_at LIMIT $3`
	sqlRenameRoute = `UPDATE records SET route = $1 WHERE (registry, repository, ref) IN
		(SELECT registry, repository, ref FROM records WHERE route = $2 AND registry = $3 LIMIT $4)`
	sqlRecordTimes = `SELECT (SELECT COALESCE(MIN(proven_at), 0) FROM records WHERE route = $1 AND registry = $2 AND trust = $3),
		(SELECT COALESCE(MAX(proven_at), 0) FROM records WHERE route = $1 AND registry = $2 AND trust = $3)`

	sqlBase     = `SELECT digest, intents FROM bases WHERE dst = $1 AND dst_repository = $2 AND ref = $3 AND src = $4 AND src_repository = $5`
	sqlSaveBase = `INSERT INTO bases (dst, dst_repository, ref, src, src_repository, digest, intents, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (dst, dst_repository, ref, src, src_repository) DO UPDATE SET digest = excluded.digest,
		intents = excluded.intents, updated_at = excluded.updated_at`

	sqlLastTagState = `SELECT at, digest, n FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 ORDER BY at DESC, id DESC LIMIT 1`
	sqlTagStateBefore = `SELECT digest FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 AND at <= $4 ORDER BY at DESC, id DESC LIMIT 1`
	sqlTagStateAfter = `SELECT id, digest FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 AND at > $4 ORDER BY at, id LIMIT 1`
	sqlMoveTagState = `UPDATE tag_states SET at = $2 WHERE id = $1`
	sqlAddTagState  = `INSERT INTO tag_states (id, registry, repository, tag, at, digest, cause, n)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	sqlTrimTagStates = `DELETE FROM tag_states WHERE id IN (SELECT id FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 ORDER BY at DESC, id DESC LIMIT 1000 OFFSET $4)`
	sqlHistory = `SELECT at, digest, cause FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 AND at <= $4 ORDER BY at DESC, id DESC LIMIT $5`
	sqlTagStates = `SELECT s.tag, s.at, s.digest, s.cause FROM tag_states s
		WHERE s.registry = $1 AND s.repository = $2 AND s.tag >= $3 AND NOT EXISTS (SELECT 1 FROM tag_states n
		WHERE n.registry = s.registry AND n.repository = s.repository AND n.tag = s.tag AND (n.at, n.id) > (s.at, s.id))
		ORDER BY s.tag LIMIT $4`
	sqlOldTagStates = `SELECT id, registry, repository, tag, at FROM tag_states
		WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3`
	sqlNthTagState = `SELECT at, id FROM tag_states
		WHERE registry = $1 AND repository = $2 AND tag = $3 ORDER BY at DESC, id DESC LIMIT 1 OFFSET $4`
	sqlDropTagState = `DELETE FROM tag_states WHERE id = $1`
	sqlMaxTagState  = `SELECT COALESCE(MAX(id), 0) FROM tag_states`

	sqlLocations    = `SELECT repository, at FROM locations WHERE registry = $1 AND digest = $2 ORDER BY at DESC, repository`
	sqlSaveLocation = `INSERT INTO locations (registry, digest, repository, at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (registry, digest, repository) DO UPDATE SET at = excluded.at`
	sqlDropLocation = `DELETE FROM locations WHERE registry = $1 AND digest = $2 AND repository = $3`

	sqlAnyRefusal = `SELECT 1 FROM refusals LIMIT 1`
	sqlRefusal    = `SELECT kind, message, hint FROM refusals
		WHERE registry = $1 AND repository = $2 AND digest = $3 AND fingerprint = $4`
	sqlSaveRefusal = `INSERT INTO refusals (registry, repository, digest, fingerprint, at, kind, message, hint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (registry, repository, digest) DO UPDATE SET fingerprint = excluded.fingerprint,
		at = excluded.at, kind = excluded.kind, message = excluded.message, hint = excluded.hint`
	sqlDropRefusal       = `DELETE FROM refusals WHERE registry = $1 AND repository = $2 AND digest = $3`
	sqlDropStaleRefusals = `DELETE FROM refusals WHERE fingerprint <> $1`

	findingColumns = `id, kind, at, first_at, times, route, registry, repository, tag, digest, message, hint, acknowledged`
	sqlTellFinding = `INSERT INTO findings (same, ` + findingColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0)
		ON CONFLICT (same) DO UPDATE SET at = CASE WHEN excluded.at > findings.at THEN excluded.at ELSE findings.at END,
		times = findings.times + excluded.times, message = excluded.message,
		acknowledged = CASE WHEN findings.acknowledged = 2 THEN 0 ELSE findings.acknowledged END RETURNING times`
	sqlCountFindings = `SELECT COUNT(*) FROM findings`
	sqlTrimFindings  = `DELETE FROM findings WHERE id IN (SELECT id FROM findings ORDER BY at, id LIMIT $1)`
	sqlOldFindings   = `DELETE FROM findings WHERE id IN (SELECT id FROM findings WHERE at < $1 ORDER BY at, id LIMIT $2)`
	sqlFindingByID   = `SELECT ` + findingColumns + ` FROM findings WHERE id = $1`
	sqlAcknowledge   = `UPDATE findings SET acknowledged = 1 WHERE id = $1`
	sqlCloseFinding  = `UPDATE findings SET acknowledged = 2 WHERE id = $1 AND acknowledged = 0`
	sqlFindings      = `SELECT ` + findingColumns + ` FROM findings WHERE (at, id) < ($1, $2)`
	sqlTellTotal     = `INSERT INTO finding_totals (kind, total) VALUES ($1, $2)
		ON CONFLICT (kind) DO UPDATE SET total = finding_totals.total + excluded.total`
	sqlFindingTotals = `SELECT kind, total FROM finding_totals`
	sqlMaxFinding    = `SELECT COALESCE(MAX(id), 0) FROM findings`
	sqlRefusedRows   = `SELECT id FROM jobs WHERE dst = $1 AND dst_repository = $2 AND ref = $3 AND ended = 0 AND state = 3`

	sqlAddAudit  = `INSERT INTO audits (id, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6)`
	sqlAudits    = `SELECT at, actor, action, target, detail FROM audits ORDER BY id DESC LIMIT $1`
	sqlOldAudits = `DELETE FROM audits WHERE id IN (SELECT id FROM audits WHERE id < $1 ORDER BY id LIMIT $2)`
	sqlMaxAudit  = `SELECT COALESCE(MAX(id), 0) FROM audits`

	sqlPause  = `INSERT INTO pauses (route, at, actor) VALUES ($1, $2, $3) ON CONFLICT (route) DO NOTHING`
	sqlResume = `DELETE FROM pauses WHERE route = $1`
	sqlPauses = `SELECT route FROM pauses`

	sqlSweep = `SELECT position, started_at, completed_at, complete_start, failed_at, error, requests, tags, seeded
		FROM sweeps WHERE route = $1 AND destination = $2`
	sqlSaveSweep = `INSERT INTO sweeps (route, destination, position, started_at, completed_at, complete_start,
		failed_at, error, requests, tags, seeded) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (route, destination) DO UPDATE SET position = excluded.position, started_at = excluded.started_at,
		completed_at = excluded.completed_at, complete_start = excluded.complete_start, failed_at = excluded.failed_at,
		error = excluded.error, requests = excluded.requests, tags = excluded.tags, seeded = excluded.seeded`
	sqlSweepDue      = `INSERT INTO sweeps_due (registry, at) VALUES ($1, $2) ON CONFLICT (registry) DO NOTHING`
	sqlSweepsDue     = `SELECT registry FROM sweeps_due ORDER BY registry`
	sqlClearSweepDue = `DELETE FROM sweeps_due WHERE registry = $1`

	sqlCountJobs = `INSERT INTO job_counts (edge, state, lane, n) VALUES ($1, $2, $3, $4)
		ON CONFLICT (edge, state, lane) DO UPDATE SET n = job_counts.n + excluded.n`
	sqlRecountJobs = `INSERT INTO job_counts (edge, state, lane, n)
		SELECT edge, state, lane, COUNT(*) FROM jobs WHERE state < 5 GROUP BY edge, state, lane`
	sqlJobCounts = `SELECT edge, state, lane, n FROM job_counts WHERE n > 0`
	// The literals are for the partial index.
	sqlBehindSince  = `SELECT COALESCE(MIN(behind_since), 0) FROM jobs WHERE edge = $1 AND state < 4 AND behind_since > 0`
	sqlRecordCounts = `SELECT route, registry, trust, n, unconfirmed FROM record_counts WHERE n > 0`
	sqlNoRecords    = `DELETE FROM record_counts WHERE n = 0`
	sqlOldJobs      = `SELECT id FROM jobs WHERE id > $1 AND id < $2 AND ended <> 0 AND updated_at < $3 ORDER BY id LIMIT $4`
	sqlDropJob      = `DELETE FROM jobs WHERE id = $1`
)
