package journal

// Statements of departures, as those of sql.go.
const (
	departureColumns = `route, registry, repository, tag, src, src_repository, digest, since, seen_at, absent, held, begun_at`
	sqlSaveDeparture = `INSERT INTO departures (` + departureColumns + `, replica, epoch)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (route, registry, repository, tag) DO UPDATE SET src = excluded.src, src_repository = excluded.src_repository,
		digest = excluded.digest, since = excluded.since, seen_at = excluded.seen_at, absent = excluded.absent,
		held = excluded.held, begun_at = excluded.begun_at, replica = excluded.replica, epoch = excluded.epoch`
	sqlDeparture = `SELECT ` + departureColumns + ` FROM departures
		WHERE route = $1 AND registry = $2 AND repository = $3 AND tag = $4`
	sqlDepartures = `SELECT ` + departureColumns + ` FROM departures
		WHERE route = $1 AND registry = $2 AND (repository, tag) > ($3, $4) ORDER BY repository, tag LIMIT $5`
	sqlUnseenDeparture = `SELECT 1 FROM departures
		WHERE route = $1 AND registry = $2 AND repository = $3 AND seen_at < $4 AND begun_at = 0 LIMIT 1`
	sqlDropUnseen = `DELETE FROM departures
		WHERE route = $1 AND registry = $2 AND repository = $3 AND seen_at < $4 AND begun_at = 0`
	sqlDropDeparture = `DELETE FROM departures WHERE route = $1 AND registry = $2 AND repository = $3 AND tag = $4`
	sqlDueDepartures = `SELECT COUNT(*) FROM departures
		WHERE route = $1 AND registry = $2 AND seen_at >= $3 AND absent >= $4 AND held = ''`
	sqlDepartureCounts = `SELECT COUNT(*), COALESCE(SUM(CASE WHEN held <> '' THEN 1 ELSE 0 END), 0) FROM departures
		WHERE route = $1 AND registry = $2`
	sqlOldDepartures = `SELECT route, registry, repository, tag FROM departures
		WHERE (route, registry, repository, tag) > ($1, $2, $3, $4) AND seen_at < $5
		ORDER BY route, registry, repository, tag LIMIT $6`

	sqlAnyDeparture = `SELECT 1 FROM departures LIMIT 1`
	// A removal that a process which lives has under way is waited for.
	sqlDropReturned = `DELETE FROM departures WHERE registry = $1 AND repository = $2 AND tag = $3 AND NOT (begun_at > 0
		AND EXISTS (SELECT 1 FROM replicas WHERE replicas.id = departures.replica AND replicas.epoch = departures.epoch))`
	sqlBeingRemoved = `SELECT 1 FROM departures WHERE registry = $1 AND repository = $2 AND tag = $3 AND begun_at > 0
		AND EXISTS (SELECT 1 FROM replicas WHERE replicas.id = departures.replica AND replicas.epoch = departures.epoch) LIMIT 1`
	sqlLiveRow = `SELECT 1 FROM jobs WHERE dst = $1 AND dst_repository = $2 AND ref = $3 AND ended = 0 LIMIT 1`

	sqlDropRecord = `DELETE FROM records WHERE registry = $1 AND repository = $2 AND ref = $3`
	sqlProvenTags = `SELECT COUNT(*) FROM records WHERE route = $1 AND registry = $2 AND trust = $3 AND tag <> ''`
	sqlTagsOf     = `SELECT ref FROM records WHERE digest = $1 AND registry = $2 AND repository = $3 AND ref > $4
		AND trust = $5 AND tag <> '' ORDER BY ref LIMIT $6`
)
