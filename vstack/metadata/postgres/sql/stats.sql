-- name: totals
SELECT (SELECT count(*) FROM videos WHERE status <> 'deleting') AS videos,
       (SELECT count(*) FROM chunks) AS chunks,
       (SELECT count(*) FROM replicas WHERE status = 'active' AND fragment_index = -1) AS replicas,
       (SELECT count(*) FROM replicas WHERE status = 'active' AND fragment_index >= 0) AS fragments

-- name: overhead
-- Logical bytes are those of the videos; physical ones those of the copies and fragments that exist.
SELECT c.mode, count(*) AS chunks, coalesce(sum(c.size_bytes), 0)::bigint AS logical_bytes,
       coalesce(sum(p.physical_bytes), 0)::bigint AS physical_bytes
FROM chunks c
CROSS JOIN LATERAL (
    SELECT sum(coalesce(r.size_bytes, c.size_bytes)) AS physical_bytes
    FROM replicas r WHERE r.chunk_key = c.chunk_key AND r.status = 'active'
) p
GROUP BY c.mode

-- name: videos_by_status
SELECT s.status, count(v.video_id) AS videos
FROM unnest(ARRAY['uploading', 'active', 'failed', 'deleting']) AS s (status)
LEFT JOIN videos v ON v.status = s.status
GROUP BY s.status

-- name: chunk_counts
SELECT (SELECT count(*) FROM chunks) AS chunks,
       (SELECT count(DISTINCT chunk_key) FROM replicas WHERE status = 'missing') AS degraded
