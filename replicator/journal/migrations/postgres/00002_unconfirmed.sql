-- +goose Up

-- 1: what the destination's tag names was proven, but its source, which did not
-- answer, has not been asked whether that is still its latest push.
ALTER TABLE records ADD COLUMN unconfirmed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX records_digest ON records (digest, registry, repository, ref);
CREATE INDEX records_unconfirmed ON records (route, registry, trust) WHERE unconfirmed = 1;
