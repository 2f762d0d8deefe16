-- +goose Up

-- Tags that are gone at the source of a route that carries deletions over: what
-- is kept is since when, and whether the removal at the destination is under
-- way. absent adds up, in microseconds, what lies between listings.
CREATE TABLE departures (
	route          TEXT COLLATE "C" NOT NULL,
	registry       BIGINT NOT NULL,
	repository     TEXT COLLATE "C" NOT NULL,
	tag            TEXT COLLATE "C" NOT NULL,
	src            BIGINT NOT NULL,
	src_repository TEXT COLLATE "C" NOT NULL,
	digest         TEXT COLLATE "C" NOT NULL,
	since          BIGINT NOT NULL,
	seen_at        BIGINT NOT NULL,
	absent         BIGINT NOT NULL,
	held           TEXT COLLATE "C" NOT NULL,
	begun_at       BIGINT NOT NULL,
	replica        TEXT COLLATE "C" NOT NULL,
	epoch          BIGINT NOT NULL,
	PRIMARY KEY (route, registry, repository, tag)
);
CREATE INDEX departures_tag ON departures (registry, repository, tag);
