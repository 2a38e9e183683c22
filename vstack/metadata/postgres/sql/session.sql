-- name: configure
SELECT set_config('statement_timeout', %(statement_timeout_ms)s, false), set_config('timezone', 'UTC', false)

-- name: read_only
SELECT current_setting('transaction_read_only')::boolean

-- name: try_lock
SELECT pg_try_advisory_lock(%(key)s)

-- name: unlock
SELECT pg_advisory_unlock(%(key)s)

-- name: lock_for_transaction
SELECT pg_advisory_xact_lock(%(key)s)
