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
SELECT r.fragment_index, n.node_id, r.status, coalesce(r.size_bytes, c.size_bytes) AS size_bytes,
       encode(coalesce(r.checksum, c.checksum), 'hex') AS checksum
FROM chunks c
JOIN replicas r USING (chunk_key)
JOIN nodes n USING (node_key)
WHERE c.chunk_id = %(chunk_id)s
ORDER BY r.fragment_index, n.node_id

-- name: manifest
SELECT c.chunk_id, c.sequence_num, c.mode, c.size_bytes, encode(c.checksum, 'hex') AS checksum, c.duration_ms,
       c.segment, c.init_size_bytes,
       array_agg(n.node_id ORDER BY r.fragment_index, n.node_id) AS node_ids,
       array_agg(r.fragment_index ORDER BY r.fragment_index, n.node_id) AS fragment_indexes,
       array_agg(r.status ORDER BY r.fragment_index, n.node_id) AS statuses,
       array_agg(coalesce(r.size_bytes, c.size_bytes) ORDER BY r.fragment_index, n.node_id) AS sizes,
       array_agg(encode(coalesce(r.checksum, c.checksum), 'hex') ORDER BY r.fragment_index, n.node_id) AS checksums
FROM chunks c
JOIN replicas r USING (chunk_key)
JOIN nodes n USING (node_key)
WHERE c.video_id = %(video_id)s
GROUP BY c.chunk_key
ORDER BY c.sequence_num
