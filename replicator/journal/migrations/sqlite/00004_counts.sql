-- +goose Up

-- How many rows of desired state each edge, state and lane has, and how many
-- records each route at a registry, so that nobody has to count them. Whoever
-- writes jobs writes their numbers, too, once a transaction; those of records
-- are kept by triggers.
CREATE TABLE job_counts (
	edge  BIGINT NOT NULL,
	state BIGINT NOT NULL,
	lane  BIGINT NOT NULL,
	n     BIGINT NOT NULL,
	PRIMARY KEY (edge, state, lane)
) WITHOUT ROWID;

CREATE TABLE record_counts (
	route       TEXT   NOT NULL,
	registry    BIGINT NOT NULL,
	trust       BIGINT NOT NULL,
	n           BIGINT NOT NULL,
	unconfirmed BIGINT NOT NULL,
	PRIMARY KEY (route, registry, trust)
) WITHOUT ROWID;

-- The earliest push that no proof covers is the first of an edge here.
CREATE INDEX jobs_behind ON jobs (edge, behind_since) WHERE state < 4 AND behind_since > 0;

-- Errors are looked for within a route or a state, too.
DROP INDEX jobs_error;
CREATE INDEX jobs_errors ON jobs (edge, error_kind, state, id) WHERE error_kind <> '';

INSERT INTO job_counts (edge, state, lane, n)
	SELECT edge, state, lane, COUNT(*) FROM jobs WHERE state < 5 GROUP BY edge, state, lane;
INSERT INTO record_counts (route, registry, trust, n, unconfirmed)
	SELECT route, registry, trust, COUNT(*), SUM(unconfirmed) FROM records GROUP BY route, registry, trust;

-- +goose StatementBegin
CREATE TRIGGER records_counted_made AFTER INSERT ON records BEGIN
	INSERT INTO record_counts (route, registry, trust, n, unconfirmed)
		VALUES (NEW.route, NEW.registry, NEW.trust, 1, NEW.unconfirmed)
		ON CONFLICT (route, registry, trust) DO UPDATE SET n = n + 1, unconfirmed = unconfirmed + excluded.unconfirmed;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER records_counted_changed AFTER UPDATE OF route, registry, trust, unconfirmed ON records
	WHEN OLD.route <> NEW.route OR OLD.registry <> NEW.registry OR OLD.trust <> NEW.trust OR OLD.unconfirmed <> NEW.unconfirmed BEGIN
	UPDATE record_counts SET n = n - 1, unconfirmed = unconfirmed - OLD.unconfirmed
		WHERE route = OLD.route AND registry = OLD.registry AND trust = OLD.trust;
	INSERT INTO record_counts (route, registry, trust, n, unconfirmed)
		VALUES (NEW.route, NEW.registry, NEW.trust, 1, NEW.unconfirmed)
		ON CONFLICT (route, registry, trust) DO UPDATE SET n = n + 1, unconfirmed = unconfirmed + excluded.unconfirmed;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER records_counted_dropped AFTER DELETE ON records BEGIN
	UPDATE record_counts SET n = n - 1, unconfirmed = unconfirmed - OLD.unconfirmed
		WHERE route = OLD.route AND registry = OLD.registry AND trust = OLD.trust;
END;
-- +goose StatementEnd
