-- Every statement of soakd/edge/store.py, by name. Format: `-- name: NAME`, comment lines, one
-- statement. {assignments} is filled from an allow-list in store.py, never from outside.

-- name: insert_run
-- A new run always begins as the state its submitter made (queued).
INSERT INTO runs (owner_uid, owner_name, label, created_at, state, state_json, plan_json, sha256_json)
VALUES (:owner_uid, :owner_name, :label, :created_at, :state, :state_json, :plan_json, :sha256_json);

-- name: move_state
-- No row: someone else moved the run first, nothing is written.
UPDATE runs SET state = :state, state_json = :state_json WHERE id = :id AND state = :expect;

-- name: set_columns
UPDATE runs SET {assignments} WHERE id = :id;

-- name: run_by_id
SELECT * FROM runs WHERE id = :id;

-- name: all_runs
-- Newest first; owner NULL = of everyone.
SELECT * FROM runs WHERE :owner_uid IS NULL OR owner_uid = :owner_uid ORDER BY id DESC LIMIT :limit;

-- name: unfinished_runs
SELECT * FROM runs WHERE state <> 'finished' ORDER BY id;

-- name: latest_run_of
-- "My active or latest run": executing before queued before finished, newest first.
SELECT * FROM runs WHERE owner_uid = :owner_uid
ORDER BY state = 'finished', state = 'queued', id DESC LIMIT 1;

-- name: spells
-- Who was executing since then, however it ended.
SELECT id, owner_uid, started_at, ended_at, measured_json, plan_json FROM runs
WHERE started_at IS NOT NULL AND (ended_at IS NULL OR ended_at > :since) ORDER BY id;

-- name: put_fact
INSERT INTO facts (name, value_json) VALUES (:name, :value_json)
ON CONFLICT (name) DO UPDATE SET value_json = excluded.value_json;

-- name: fact
SELECT * FROM facts WHERE name = :name;

-- name: put_node
-- A new life of the node forgets the exit of the one before.
INSERT INTO nodes (run_id, name, pid, ticks) VALUES (:run_id, :name, :pid, :ticks)
ON CONFLICT (run_id, name) DO UPDATE SET pid = excluded.pid, ticks = excluded.ticks, exit_json = NULL;

-- name: node_exited
INSERT INTO nodes (run_id, name, exit_json) VALUES (:run_id, :name, :exit_json)
ON CONFLICT (run_id, name) DO UPDATE SET exit_json = excluded.exit_json;

-- name: nodes_of
SELECT * FROM nodes WHERE run_id = :run_id ORDER BY name;

-- name: take_lease
INSERT INTO leases (kind, key, run_id) VALUES (:kind, :key, :run_id) ON CONFLICT DO NOTHING;

-- name: lease_holder
SELECT * FROM leases WHERE kind = :kind AND key = :key;

-- name: all_leases
SELECT * FROM leases ORDER BY kind, key;

-- name: release_leases
DELETE FROM leases WHERE run_id = :run_id;

-- name: forget_blocked
UPDATE OR REPLACE leases SET kind = 'forgotten' WHERE run_id = :run_id AND kind = 'blocked';

-- name: release_all_but_forgotten
DELETE FROM leases WHERE run_id = :run_id AND kind <> 'forgotten';

-- name: add_secret
INSERT INTO secrets (run_id, kind, value) VALUES (:run_id, :kind, :value) ON CONFLICT DO NOTHING;

-- name: secrets_of
SELECT * FROM secrets WHERE run_id = :run_id ORDER BY kind, value;

-- name: add_gap
INSERT INTO gaps (run_id, from_at, to_at, s, why) VALUES (:run_id, :from_at, :to_at, :s, :why);

-- name: gaps_of
SELECT * FROM gaps WHERE run_id = :run_id ORDER BY from_at;

-- name: add_audit
INSERT INTO audit (at, run_id, uid, what, detail_json) VALUES (:at, :run_id, :uid, :what, :detail_json);

-- name: audit_of
SELECT * FROM audit WHERE run_id = :run_id ORDER BY id;
