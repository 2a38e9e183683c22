-- name: set_lock_timeout
SELECT set_config('lock_timeout', %(timeout_ms)s, false)

-- name: lock
SELECT pg_advisory_lock(%(key)s)

-- name: unlock
SELECT pg_advisory_unlock(%(key)s)

-- name: create_ledger
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: applied
SELECT version FROM schema_migrations

-- name: record
INSERT INTO schema_migrations (version, name) VALUES (%(version)s, %(name)s)
