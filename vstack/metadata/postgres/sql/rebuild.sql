-- name: stage
-- Temporary: they live and die with the rebuild's connection. Nothing of a rebuild has to fit into memory.
CREATE TEMP TABLE rebuild_nodes (node_id text PRIMARY KEY, url text NOT NULL);
CREATE TEMP TABLE rebuild_states (
    node_id text, chunk_id text COLLATE "C", epoch integer, generation integer, acceptors text[],
    promised bigint, accepted_ballot bigint, accepted_value bytea, learned boolean, retired boolean
);
CREATE TEMP TABLE rebuild_objects (
    object_id text, node_id text, checksum bytea, size_bytes integer
);
CREATE TEMP TABLE rebuild_chosen (
    chunk_id text, video_id text, sequence_num integer, epoch integer, generation integer, acceptors text[],
    mode text, size_bytes integer, checksum bytea, duration_ms integer, segment integer, init_size_bytes integer,
    is_last boolean, decree bytea, title text, created_at timestamptz, next_generation integer
);
CREATE TEMP TABLE rebuild_pieces (
    chunk_id text, object_id text, node_id text, fragment_index smallint, checksum bytea, size_bytes integer,
    is_fragment boolean
)

-- name: add_node
INSERT INTO rebuild_nodes VALUES (%(node_id)s, %(url)s)

-- name: copy_states
COPY rebuild_states FROM STDIN

-- name: copy_objects
COPY rebuild_objects FROM STDIN

-- name: copy_chosen
COPY rebuild_chosen FROM STDIN

-- name: copy_pieces
COPY rebuild_pieces FROM STDIN

-- name: index_states
CREATE INDEX ON rebuild_states (chunk_id, epoch DESC);
CREATE INDEX ON rebuild_objects (object_id, node_id);
ANALYZE rebuild_states;
ANALYZE rebuild_objects

-- name: states
SELECT node_id, chunk_id, epoch, generation, acceptors, promised, accepted_ballot, accepted_value, learned, retired
FROM rebuild_states
ORDER BY chunk_id, epoch DESC

-- name: present
SELECT object_id, node_id, encode(checksum, 'hex') AS checksum
FROM rebuild_objects WHERE object_id = ANY(%(object_ids)s)

-- name: index_chosen
CREATE UNIQUE INDEX ON rebuild_chosen (chunk_id);
CREATE INDEX ON rebuild_chosen (video_id, sequence_num);
ANALYZE rebuild_chosen;
ANALYZE rebuild_pieces

-- name: restore_nodes
-- They have just answered, so they count as alive; they must still register to say what else there is to know.
INSERT INTO nodes (node_id, url, host, version, superseded, last_heartbeat)
SELECT r.node_id, r.url, substring(r.url FROM '^https?://(\[[^]]*\]|[^:/]*)'), '',
       EXISTS (SELECT 1 FROM nodes n WHERE n.url = r.url AND NOT n.superseded), clock_timestamp()
FROM rebuild_nodes r
ON CONFLICT (node_id) DO NOTHING

-- name: restore_absent_nodes
-- Named by decrees or acceptors, but not among the nodes read: known by id only, until they register.
INSERT INTO nodes (node_id, url, host, version, superseded)
SELECT node_id, '', node_id, '', true
FROM (SELECT node_id FROM rebuild_pieces UNION SELECT unnest(acceptors) FROM rebuild_states) named
ON CONFLICT (node_id) DO NOTHING

-- name: restore_generations
-- A number that was ever used is never used again. The members are those that are still known of.
INSERT INTO generations (number, members, restored)
SELECT named.number, jsonb_agg(jsonb_build_object(
           'node_id', n.node_id, 'host', n.host, 'weight', 1.0, 'zone', n.zone) ORDER BY n.node_id), true
FROM (
    SELECT generation AS number, unnest(acceptors) AS node_id FROM rebuild_states
    UNION
    SELECT c.next_generation, p.node_id FROM rebuild_chosen c JOIN rebuild_pieces p USING (chunk_id)
) named
JOIN nodes n USING (node_id)
WHERE named.number > 0
GROUP BY named.number
ON CONFLICT (number) DO NOTHING

-- name: restore_videos
WITH made AS (
    INSERT INTO videos (video_id, title, status, generation, created_at, restored_at)
    SELECT DISTINCT ON (video_id) video_id, title, 'failed', next_generation, created_at, clock_timestamp()
    FROM rebuild_chosen
    ORDER BY video_id, sequence_num
    ON CONFLICT (video_id) DO NOTHING
    RETURNING video_id
)
INSERT INTO video_views (video_id) SELECT video_id FROM made

-- name: restore_chunks
-- A video that is dying stays dead. A row that is there already stays as it is. An upload of which the database had
-- lost chunks is nobody's any more: marked as restored, it is never given up automatically.
WITH added AS (
    INSERT INTO chunks (chunk_id, video_id, sequence_num, epoch, generation, acceptors, mode, size_bytes, checksum,
                        duration_ms, segment, init_size_bytes, is_last, decree)
    SELECT r.chunk_id, r.video_id, r.sequence_num, r.epoch, r.generation, r.acceptors, r.mode, r.size_bytes, r.checksum,
           r.duration_ms, r.segment, r.init_size_bytes, r.is_last, r.decree
    FROM rebuild_chosen r JOIN videos v USING (video_id)
    WHERE v.status IN ('uploading', 'active') OR v.restored_at IS NOT NULL AND v.status <> 'deleting'
    ORDER BY r.video_id, r.sequence_num
    ON CONFLICT DO NOTHING
    RETURNING video_id
)
UPDATE videos SET restored_at = coalesce(restored_at, clock_timestamp())
WHERE status <> 'active' AND video_id IN (SELECT video_id FROM added)

-- name: restore_replicas
INSERT INTO replicas (chunk_key, fragment_index, node_key, status, size_bytes, checksum)
SELECT c.chunk_key, p.fragment_index, n.node_key,
       CASE WHEN EXISTS (
           SELECT 1 FROM rebuild_objects o
           WHERE o.object_id = p.object_id AND o.node_id = p.node_id AND o.checksum = p.checksum
             AND o.size_bytes = p.size_bytes
       ) THEN 'active' ELSE 'missing' END,
       CASE WHEN p.is_fragment THEN p.size_bytes END,
       CASE WHEN p.is_fragment THEN p.checksum END
FROM rebuild_pieces p
JOIN rebuild_chosen r USING (chunk_id)
JOIN chunks c ON c.chunk_id = r.chunk_id AND c.decree = r.decree
JOIN nodes n ON n.node_id = p.node_id
ON CONFLICT (chunk_key, fragment_index, node_key)
    DO UPDATE SET status = 'active' WHERE replicas.status = 'missing' AND excluded.status = 'active'

-- name: complete_videos
-- Restored videos that are whole become active, and so does an upload whose last word the database has lost.
UPDATE videos v
SET status = 'active', total_chunks = e.chunks, size_bytes = e.size_bytes,
    duration_ms = CASE WHEN e.duration_ms > 0 THEN e.duration_ms ELSE v.duration_ms END
FROM (
    SELECT video_id, count(*)::integer AS chunks, sum(duration_ms) AS duration_ms, sum(size_bytes) AS size_bytes
    FROM chunks
    GROUP BY video_id
    HAVING count(*) FILTER (WHERE is_last) = 1
       AND max(sequence_num) FILTER (WHERE is_last) = max(sequence_num)
       AND count(*) = max(sequence_num) + 1
) e
WHERE v.video_id = e.video_id AND (v.status = 'uploading' OR (v.status = 'failed' AND v.restored_at IS NOT NULL))

-- name: conflicts
-- What the nodes decided and the database says otherwise; and what found its number taken.
SELECT r.chunk_id
FROM rebuild_chosen r
JOIN videos v USING (video_id)
LEFT JOIN chunks c ON c.chunk_id = r.chunk_id
WHERE (v.status IN ('uploading', 'active') OR v.restored_at IS NOT NULL AND v.status <> 'deleting')
  AND (c.chunk_id IS NULL OR c.decree <> r.decree)
ORDER BY r.chunk_id

-- name: figures
SELECT (SELECT count(*) FROM rebuild_states) AS acceptor_states,
       (SELECT count(*) FROM rebuild_objects) AS objects,
       (SELECT count(DISTINCT video_id) FROM rebuild_chosen) AS videos,
       (SELECT count(*) FROM videos v WHERE status <> 'active'
           AND EXISTS (SELECT 1 FROM rebuild_chosen r WHERE r.video_id = v.video_id)) AS incomplete_videos,
       (SELECT count(*) FROM rebuild_chosen) AS chunks,
       (SELECT count(*) FROM rebuild_pieces p JOIN chunks c USING (chunk_id)
            JOIN nodes n USING (node_id)
            JOIN replicas r ON r.chunk_key = c.chunk_key AND r.fragment_index = p.fragment_index
                           AND r.node_key = n.node_key
            WHERE r.status = 'active') AS live_pieces,
       (SELECT count(*) FROM rebuild_objects o
            WHERE NOT EXISTS (SELECT 1 FROM rebuild_pieces p WHERE p.object_id = o.object_id)) AS orphans
