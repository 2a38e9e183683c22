-- name: all
-- Ages are taken by the database's clock, so that several instances agree on who is late.
SELECT node_key, node_id, url, superseded, host, zone, version, capacity_bytes, disk_uuid, incarnation,
       disk_usage_percent, chunk_count, disk_status, last_heartbeat,
       extract(epoch FROM clock_timestamp() - last_heartbeat)::float8 AS heartbeat_age_s,
       extract(epoch FROM clock_timestamp() - last_probe)::float8 AS probe_age_s
FROM nodes
ORDER BY node_id

-- name: fence
SELECT disk_uuid, incarnation, NOT superseded AND registered_at IS NOT NULL AS registered
FROM nodes WHERE node_id = %(node_id)s

-- name: supersede
-- Another node has taken over this URL: a wiped disk comes back under a new id.
UPDATE nodes SET superseded = true WHERE url = %(url)s AND node_id <> %(node_id)s AND NOT superseded

-- name: register
-- What a registration leaves out keeps its value; a heartbeat's figures are history and stay.
INSERT INTO nodes AS n (node_id, url, host, zone, version, capacity_bytes, disk_uuid, incarnation,
                        registered_at, last_heartbeat)
VALUES (%(node_id)s, %(url)s, coalesce(%(host)s, %(default_host)s), coalesce(%(zone)s, ''),
        coalesce(%(version)s, %(default_version)s), coalesce(%(capacity_bytes)s, 0), %(disk_uuid)s,
        coalesce(%(incarnation)s, 0), clock_timestamp(), clock_timestamp())
ON CONFLICT (node_id) DO UPDATE SET
    url = excluded.url,
    superseded = false,
    host = coalesce(%(host)s, CASE WHEN n.url = excluded.url THEN n.host ELSE excluded.host END),
    zone = coalesce(%(zone)s, n.zone),
    version = coalesce(%(version)s, n.version),
    capacity_bytes = coalesce(%(capacity_bytes)s, n.capacity_bytes),
    disk_uuid = coalesce(n.disk_uuid, excluded.disk_uuid),
    incarnation = greatest(n.incarnation, excluded.incarnation),
    registered_at = coalesce(n.registered_at, clock_timestamp()),
    last_heartbeat = clock_timestamp()

-- name: heartbeat
-- A node that must register (again) first is not found.
UPDATE nodes SET
    disk_usage_percent = %(disk_usage_percent)s,
    chunk_count = %(chunk_count)s,
    disk_status = %(disk_status)s,
    capacity_bytes = coalesce(%(capacity_bytes)s, capacity_bytes),
    incarnation = greatest(incarnation, coalesce(%(incarnation)s, 0)),
    last_heartbeat = clock_timestamp()
WHERE node_id = %(node_id)s AND NOT superseded AND registered_at IS NOT NULL
  AND incarnation <= coalesce(%(incarnation)s, incarnation)

-- name: probed
UPDATE nodes SET last_probe = clock_timestamp() WHERE node_key = ANY(%(node_keys)s)
