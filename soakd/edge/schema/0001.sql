-- The first schema. Never edited after release: a change is a new file 0002.sql, 0003.sql, ...
-- Times: *_at are epoch seconds (wall clock, records only). *_json columns belong to the layer
-- above; the store neither reads nor checks them.
-- Not STRICT: python 3.11 on RHEL 9 brings SQLite 3.34, which does not know the word.

CREATE TABLE runs (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: an id is never reused
  owner_uid     INTEGER NOT NULL,
  owner_name    TEXT NOT NULL,
  label         TEXT,
  created_at    REAL NOT NULL,
  state         TEXT NOT NULL,                      -- name of the state, what transitions compare
  state_json    TEXT NOT NULL,                      -- the whole state (core.run_state.to_dict)
  plan_json     TEXT NOT NULL,                      -- frozen at submission
  sha256_json   TEXT NOT NULL,                      -- binaries as the client saw them
  nonce         TEXT,                               -- labels the processes of the run
  started_at    REAL,
  ended_at      REAL,
  result        TEXT,
  verdict       TEXT,
  why           TEXT,
  cause_json    TEXT,
  edits_json    TEXT NOT NULL DEFAULT '[]',
  counters_json TEXT,                               -- checkpoint: counters over ...
  rounds_offset INTEGER NOT NULL DEFAULT 0,         -- ... rounds.ndjson up to this byte
  last_round    INTEGER NOT NULL DEFAULT 0,
  measured_json TEXT,
  cgroup        TEXT,
  boot_id       TEXT,
  shim_pid      INTEGER,
  shim_ticks    INTEGER,
  shim_n        INTEGER NOT NULL DEFAULT 0          -- shims of this run so far
);

CREATE INDEX runs_by_owner ON runs (owner_uid, id);
CREATE INDEX runs_unfinished ON runs (id) WHERE state <> 'finished';

CREATE TABLE nodes (
  run_id    INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  name      TEXT NOT NULL,
  pid       INTEGER,
  ticks     INTEGER,
  exit_json TEXT,
  PRIMARY KEY (run_id, name)
) WITHOUT ROWID;

CREATE TABLE leases (
  kind   TEXT NOT NULL,                             -- port, session, identity, slot
  key    TEXT NOT NULL,
  run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;

CREATE INDEX leases_by_run ON leases (run_id);

CREATE TABLE secrets (                              -- what no bundle of the run may contain
  run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  kind   TEXT NOT NULL,
  value  TEXT NOT NULL,
  PRIMARY KEY (run_id, kind, value)
) WITHOUT ROWID;

CREATE TABLE gaps (                                 -- times in which nobody measured
  run_id  INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  from_at REAL NOT NULL,
  to_at   REAL NOT NULL,
  s       REAL NOT NULL,                            -- by the boot clock: to_at - from_at may lie
  why     TEXT NOT NULL
);

CREATE INDEX gaps_by_run ON gaps (run_id, from_at);

CREATE TABLE audit (                                -- who did what; outlives the run it is about
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          REAL NOT NULL,
  run_id      INTEGER,
  uid         INTEGER,                              -- NULL: soakd itself
  what        TEXT NOT NULL,
  detail_json TEXT NOT NULL
);

CREATE INDEX audit_by_run ON audit (run_id, id);
