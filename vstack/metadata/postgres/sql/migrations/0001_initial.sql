-- The first schema. Valid on PostgreSQL 15 to 18.
--
-- Surrogate keys stand where rows are many: a replica row names its chunk in 8 bytes and its node in 4, which at
-- 20 million chunks saves several gigabytes against their textual ids.

CREATE TABLE generations (
    number     integer     PRIMARY KEY CHECK (number > 0),
    -- [{"node_id", "host", "weight", "zone"}], immutable once inserted.
    members    jsonb       NOT NULL,
    -- Made by a rebuild from the acceptors' words: its number is taken, but no new video pins it.
    restored   boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE nodes (
    node_key           integer          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id            text             NOT NULL UNIQUE,
    url                text             NOT NULL,
    -- Another node registered this URL later: this one is gone, or must register under a URL of its own.
    superseded         boolean          NOT NULL DEFAULT false,
    host               text             NOT NULL,
    zone               text             NOT NULL DEFAULT '',
    version            text             NOT NULL,
    capacity_bytes     bigint           NOT NULL DEFAULT 0,
    disk_uuid          text,
    incarnation        bigint           NOT NULL DEFAULT 0,
    disk_usage_percent double precision NOT NULL DEFAULT 0,
    chunk_count        bigint           NOT NULL DEFAULT 0,
    disk_status        text             NOT NULL DEFAULT 'healthy',
    -- NULL for a node that only a rebuild has told us of: it must still register.
    registered_at      timestamptz,
    last_heartbeat     timestamptz,
    -- The last time that a probe of ours reached the node while its heartbeat was late.
    last_probe         timestamptz
);

CREATE UNIQUE INDEX nodes_by_url ON nodes (url) WHERE NOT superseded;

CREATE TABLE videos (
    video_id      text           PRIMARY KEY,
    title         text           NOT NULL,
    status        text           NOT NULL DEFAULT 'uploading'
                                 CHECK (status IN ('uploading', 'active', 'failed', 'deleting')),
    -- The node set that decides this video's placements; 0 until there is a node to decide anything.
    generation    integer        NOT NULL,
    -- Whole milliseconds, as in the decrees.
    created_at    timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
    duration_ms   bigint         NOT NULL DEFAULT 0,
    -- Known once the video is active, and kept so that a list of videos need not visit their chunks.
    total_chunks  integer,
    size_bytes    bigint,
    override_mode text           CHECK (override_mode IN ('replication', 'erasure_coding')),
    -- Made by a rebuild from the storage nodes: never given up automatically.
    restored_at   timestamptz,
    -- A failed video's data was removed.
    reaped_at     timestamptz
);

CREATE INDEX videos_by_age ON videos (created_at DESC, video_id);
CREATE INDEX videos_to_reap ON videos (created_at)
    WHERE status IN ('uploading', 'deleting') OR (status = 'failed' AND reaped_at IS NULL);

-- Apart from its video, so that counting a view neither waits for a commit nor rewrites a wide row.
CREATE TABLE video_views (
    video_id   text   PRIMARY KEY REFERENCES videos ON DELETE CASCADE,
    view_count bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE chunks (
    chunk_key       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_id        text        NOT NULL UNIQUE,
    video_id        text        NOT NULL REFERENCES videos,
    sequence_num    integer     NOT NULL,
    epoch           integer     NOT NULL,
    -- Who decided this epoch: the acceptors and the generation that they were drawn from.
    generation      integer     NOT NULL,
    acceptors       text[]      NOT NULL,
    mode            text        NOT NULL CHECK (mode IN ('replication', 'erasure_coding')),
    size_bytes      integer     NOT NULL,
    checksum        bytea       NOT NULL,
    duration_ms     integer     NOT NULL,
    segment         integer     NOT NULL,
    init_size_bytes integer     NOT NULL,
    is_last         boolean     NOT NULL,
    -- The chosen value, byte for byte. The columns above repeat it for queries.
    decree          bytea       NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (video_id, sequence_num) INCLUDE (size_bytes)
);

-- Placements of the chosen decrees. Fragment -1 is a whole copy, whose checksum and size are the chunk's (NULL here).
CREATE TABLE replicas (
    chunk_key      bigint   NOT NULL REFERENCES chunks ON DELETE CASCADE,
    fragment_index smallint NOT NULL,
    node_key       integer  NOT NULL REFERENCES nodes,
    status         text     NOT NULL CHECK (status IN ('active', 'missing')),
    size_bytes     integer,
    checksum       bytea,
    PRIMARY KEY (chunk_key, fragment_index, node_key)
);

CREATE INDEX replicas_by_node ON replicas (node_key, chunk_key);
CREATE INDEX replicas_missing ON replicas (chunk_key) WHERE status = 'missing';

-- Which nodes hold nothing of a dying video any more. What is not here is done again after a restart.
CREATE TABLE reaped_nodes (
    video_id text    NOT NULL REFERENCES videos ON DELETE CASCADE,
    node_key integer NOT NULL REFERENCES nodes ON DELETE CASCADE,
    PRIMARY KEY (video_id, node_key)
);
