"""Where a chunk lives: commits, ChunkPaxos driven against real acceptors, and what the acceptors are told."""
