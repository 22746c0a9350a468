-- What users and admins say of queued runs, and what soakd must not forget over a restart.

ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;  -- higher goes first
ALTER TABLE runs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;      -- 1: kept back in the queue

CREATE TABLE facts (                                -- of the daemon itself: drain, promise
  name       TEXT PRIMARY KEY,
  value_json TEXT NOT NULL
) WITHOUT ROWID;
