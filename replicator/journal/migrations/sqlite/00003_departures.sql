-- +goose Up

-- Tags that are gone at the source of a route that carries deletions over: what
-- is kept is since when, and whether the removal at the destination is under
-- way. absent adds up, in microseconds, what lies between listings.
CREATE TABLE departures (
	route          TEXT   NOT NULL,
	registry       BIGINT NOT NULL,
	repository     TEXT   NOT NULL,
	tag            TEXT   NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT   NOT NULL,
	digest         TEXT   NOT NULL,
	since          BIGINT NOT NULL,
	seen_at        BIGINT NOT NULL,
	absent         BIGINT NOT NULL,
	held           TEXT   NOT NULL,
	begun_at       BIGINT NOT NULL,
	replica        TEXT   NOT NULL,
	epoch          BIGINT NOT NULL,
	PRIMARY KEY (route, registry, repository, tag)
) WITHOUT ROWID;
CREATE INDEX departures_tag ON departures (registry, repository, tag);
