-- name: create
-- One statement, so that the row of views is there with the video or not at all.
WITH made AS (
    INSERT INTO videos (video_id, title, generation, duration_ms)
    VALUES (%(video_id)s, %(title)s, %(generation)s, %(duration_ms)s)
    ON CONFLICT (video_id) DO NOTHING
    RETURNING video_id
)
INSERT INTO video_views (video_id) SELECT video_id FROM made

-- name: facts
SELECT video_id, title, status, generation, created_at, restored_at IS NOT NULL AS restored
FROM videos WHERE video_id = %(video_id)s

-- name: pin
-- Only a video that nothing could be decided for yet may change its generation.
UPDATE videos SET generation = %(generation)s WHERE video_id = %(video_id)s AND generation = 0

-- name: get
-- Chunks are counted only while their number is not known.
SELECT v.video_id, v.title, v.status, v.created_at, v.duration_ms, w.view_count,
       coalesce(v.total_chunks, c.chunks) AS total_chunks, coalesce(v.size_bytes, c.size_bytes) AS size_bytes
FROM videos v
JOIN video_views w USING (video_id)
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS chunks, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM chunks WHERE chunks.video_id = v.video_id AND v.total_chunks IS NULL
) c
WHERE v.video_id = %(video_id)s AND v.status <> 'deleting'

-- name: page
SELECT v.video_id, v.title, v.status, v.created_at, v.duration_ms, w.view_count,
       coalesce(v.total_chunks, c.chunks) AS total_chunks, coalesce(v.size_bytes, c.size_bytes) AS size_bytes
FROM (
    SELECT * FROM videos WHERE status <> 'deleting'
    ORDER BY created_at DESC, video_id LIMIT %(limit)s OFFSET %(offset)s
) v
JOIN video_views w USING (video_id)
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS chunks, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM chunks WHERE chunks.video_id = v.video_id AND v.total_chunks IS NULL
) c
ORDER BY v.created_at DESC, v.video_id

-- name: lock
-- Waits for the commits in flight, which hold the row shared.
SELECT status FROM videos WHERE video_id = %(video_id)s FOR UPDATE

-- name: extent
SELECT count(*)::integer AS chunks, coalesce(max(sequence_num), -1) AS highest,
       coalesce(max(sequence_num) FILTER (WHERE is_last), -1) AS last,
       count(*) FILTER (WHERE is_last)::integer AS last_marks,
       coalesce(sum(duration_ms), 0)::bigint AS duration_ms, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
FROM chunks WHERE video_id = %(video_id)s

-- name: activate
UPDATE videos SET status = 'active', total_chunks = %(total_chunks)s, size_bytes = %(size_bytes)s,
                  duration_ms = CASE WHEN %(duration_ms)s > 0 THEN %(duration_ms)s ELSE duration_ms END
WHERE video_id = %(video_id)s

-- name: set_status
UPDATE videos SET status = %(status)s WHERE video_id = %(video_id)s

-- name: delete
UPDATE videos SET status = 'deleting', reaped_at = NULL WHERE video_id = %(video_id)s AND status <> 'deleting'

-- name: count_view
-- A view is not worth waiting for the disk: a power cut may lose the last moment's views, never the count.
WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', true) AS mode)
UPDATE video_views w SET view_count = view_count + 1
FROM videos v, relaxed
WHERE v.video_id = w.video_id AND w.video_id = %(video_id)s AND v.status <> 'deleting' AND relaxed.mode = 'off'

-- name: popularity
SELECT w.view_count, v.override_mode
FROM videos v JOIN video_views w USING (video_id)
WHERE v.video_id = %(video_id)s AND v.status <> 'deleting'

-- name: override
UPDATE videos SET override_mode = %(mode)s WHERE video_id = %(video_id)s AND status <> 'deleting'
