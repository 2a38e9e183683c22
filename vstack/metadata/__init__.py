"""The metadata service: videos, chunks, placements and nodes in Postgres; commits placements by ChunkPaxos."""
