-- name: give_up_abandoned
-- An upload that has committed nothing for long will not come back. What a rebuild restored is nobody's upload.
UPDATE videos v SET status = 'failed'
WHERE status = 'uploading' AND restored_at IS NULL
  AND created_at < clock_timestamp() - make_interval(secs => %(abandoned_after_s)s)
  AND NOT EXISTS (
      SELECT 1 FROM chunks c
      WHERE c.video_id = v.video_id
        AND c.committed_at > clock_timestamp() - make_interval(secs => %(abandoned_after_s)s)
  )

-- name: dying
SELECT video_id, status, generation
FROM videos
WHERE (status = 'deleting' OR (status = 'failed' AND reaped_at IS NULL AND restored_at IS NULL))
  AND video_id > %(after)s
ORDER BY video_id
LIMIT %(limit)s

-- name: count_dying
SELECT count(*) AS videos
FROM videos
WHERE status = 'deleting' OR (status = 'failed' AND reaped_at IS NULL AND restored_at IS NULL)

-- name: reaped_nodes
SELECT node_key FROM reaped_nodes WHERE video_id = %(video_id)s

-- name: chunk_page
SELECT chunk_id, video_id, sequence_num, epoch, generation, acceptors, decree
FROM chunks
WHERE video_id = %(video_id)s AND sequence_num > %(after)s
ORDER BY sequence_num
LIMIT %(limit)s

-- name: known
SELECT chunk_id FROM chunks WHERE chunk_id = ANY(%(chunk_ids)s)

-- name: pieces_on_node
SELECT c.chunk_id, c.sequence_num, r.fragment_index
FROM chunks c JOIN replicas r USING (chunk_key)
WHERE c.video_id = %(video_id)s AND r.node_key = %(node_key)s AND c.sequence_num > %(after)s
ORDER BY c.sequence_num
LIMIT %(limit)s

-- name: node_done
INSERT INTO reaped_nodes (video_id, node_key) VALUES (%(video_id)s, %(node_key)s) ON CONFLICT DO NOTHING

-- name: forget_chunks
DELETE FROM chunks WHERE video_id = %(video_id)s

-- name: forget_progress
DELETE FROM reaped_nodes WHERE video_id = %(video_id)s

-- name: mark_reaped
UPDATE videos SET reaped_at = clock_timestamp(), total_chunks = 0, size_bytes = 0
WHERE video_id = %(video_id)s AND status = 'failed'

-- name: forget_video
DELETE FROM videos WHERE video_id = %(video_id)s AND status = 'deleting'
