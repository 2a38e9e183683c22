-- name: claims
-- Who stands where a commit wants to go: the chunk itself, or another one under its number. At most two rows.
SELECT chunk_id, video_id, sequence_num, epoch, generation, acceptors, decree
FROM chunks
WHERE chunk_id = %(chunk_id)s OR (video_id = %(video_id)s AND sequence_num = %(sequence_num)s)

-- name: get
SELECT c.chunk_id, c.video_id, c.sequence_num, c.epoch, c.generation, c.acceptors, c.decree
FROM chunks c JOIN videos v USING (video_id)
WHERE c.chunk_id = %(chunk_id)s AND v.status <> 'deleting'

-- name: record
-- The video row is held shared until the end of the statement: a chunk is added to a video that still takes chunks, or
-- not at all. A conflict inserts nothing; the caller reads what stands there.
WITH video AS (
    SELECT video_id FROM videos
    WHERE video_id = %(video_id)s AND status = 'uploading' AND restored_at IS NULL
    FOR SHARE
), chunk AS (
    INSERT INTO chunks (chunk_id, video_id, sequence_num, epoch, generation, acceptors, mode, size_bytes, checksum,
                        duration_ms, segment, init_size_bytes, is_last, decree)
    SELECT %(chunk_id)s, video_id, %(sequence_num)s, %(epoch)s, %(generation)s, %(acceptors)s, %(mode)s,
           %(size_bytes)s, %(checksum)s, %(duration_ms)s, %(segment)s, %(init_size_bytes)s, %(is_last)s, %(decree)s
    FROM video
    ON CONFLICT DO NOTHING
    RETURNING chunk_key
), copies AS (
    INSERT INTO replicas (chunk_key, fragment_index, node_key, status, size_bytes, checksum)
    SELECT chunk.chunk_key, p.fragment_index, n.node_key, p.status, p.size_bytes, p.checksum
    FROM chunk,
         unnest(%(node_ids)s::text[], %(fragment_indexes)s::smallint[], %(statuses)s::text[],
                %(sizes)s::integer[], %(checksums)s::bytea[])
             AS p (node_id, fragment_index, status, size_bytes, checksum)
         JOIN nodes n ON n.node_id = p.node_id
)
SELECT chunk_key FROM chunk

-- name: placements
-- The copies and fragments of one chunk, as placed.
SELECT r.fragment_index, r.node_key, r.status, coalesce(r.size_bytes, c.size_bytes) AS size_bytes,
       encode(coalesce(r.checksum, c.checksum), 'hex') AS checksum
FROM chunks c
JOIN replicas r USING (chunk_key)
WHERE c.chunk_id = %(chunk_id)s
ORDER BY r.fragment_index, r.node_key

-- name: manifest
-- Ordered by number. Most chunks have copies only, so that theirs is one small array and there is no JSON to make.
SELECT c.chunk_id, c.sequence_num, c.mode, c.size_bytes, c.checksum, c.duration_ms, c.segment, c.init_size_bytes,
       array_agg(r.node_key) FILTER (WHERE r.fragment_index = -1 AND r.status = 'active') AS copies,
       json_agg(json_build_array(r.fragment_index, r.node_key, r.status, r.size_bytes, encode(r.checksum, 'hex'))
                ORDER BY r.fragment_index, r.node_key) FILTER (WHERE r.fragment_index >= 0) AS fragments
FROM chunks c
JOIN replicas r USING (chunk_key)
WHERE c.video_id = %(video_id)s
GROUP BY c.chunk_key
ORDER BY c.sequence_num
