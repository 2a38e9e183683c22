"""ChunkPaxos: single-decree consensus on the placement of one chunk, one instance per (chunk id, epoch).

`config` says who the acceptors are and how many make a quorum, `messages` what they are told and answer, `acceptor` is
the durable side as a pure step function, `proposer` the driving side as a pure state machine, `receipts` the signed
proof that a fast round leaves behind. Values are opaque bytes here; `vstack.core.decree` gives them meaning.
"""
