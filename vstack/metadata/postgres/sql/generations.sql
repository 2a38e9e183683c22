-- name: get
SELECT number, members, restored FROM generations WHERE number = %(number)s

-- name: latest
SELECT number, members, restored FROM generations ORDER BY number DESC LIMIT 1

-- name: insert
-- The number is the next one above all that exist; callers hold the lock.
INSERT INTO generations (number, members)
SELECT coalesce(max(number), 0) + 1, %(members)s FROM generations
RETURNING number, members, restored
