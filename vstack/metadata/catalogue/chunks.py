"""Chunk and replica rows.

Invariants: a chunk's row holds its chosen value, byte for byte, and never another one; a replica row is `active` only
where the bytes were proven durable on that node; a row is added only while its video takes chunks.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from vstack.core.decree import Decree
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.errors import NotFoundError
from vstack.metadata.catalogue import pieces
from vstack.metadata.catalogue.pieces import Piece
from vstack.metadata.postgres import statements
from vstack.metadata.postgres.database import Database

_SQL = statements.load("chunks")


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """What a chunk's row says of its decision. `decree` is the chosen value."""

    chunk_id: str
    video_id: str
    sequence_num: int
    epoch: int
    generation: int
    acceptors: list[str]
    decree: bytes

    @property
    def instance(self) -> Instance:
        return Instance(self.chunk_id, self.epoch, Config(self.generation, tuple(self.acceptors)))


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """One copy or fragment as placed. `checksum` is hex."""

    fragment_index: int
    node_key: int
    status: Literal["active", "missing"]
    size_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class _Inserted:
    chunk_key: int


async def get(db: Database, chunk_id: str) -> ChunkRow | None:
    """The row of a chunk whose video is not being deleted."""
    return await db.row(_SQL["get"], ChunkRow, {"chunk_id": chunk_id})


async def claims(db: Database, chunk_id: str, video_id: str, sequence_num: int) -> list[ChunkRow]:
    """The rows that a commit of this chunk under this number would collide with."""
    return await db.rows(
        _SQL["claims"], ChunkRow, {"chunk_id": chunk_id, "video_id": video_id, "sequence_num": sequence_num}
    )


async def placed(db: Database, chunk_id: str) -> list[PlacedPiece]:
    """The copies and fragments of a committed chunk; NotFoundError where no such chunk is committed."""
    if await get(db, chunk_id) is None:
        raise NotFoundError(f"no chunk {chunk_id} is committed")
    return await db.rows(_SQL["placements"], PlacedPiece, {"chunk_id": chunk_id})


async def record(db: Database, instance: Instance, value: bytes, decree: Decree, durable: AbstractSet[Piece]) -> bool:
    """Insert the row of a chosen value, with `durable` pieces active and the others missing. All nodes have rows.

    False, and nothing done, where the chunk or its number has a row already or the video takes no chunks any more.
    """
    placed_pieces = pieces.of(instance.chunk_id, decree)
    params = {
        "chunk_id": instance.chunk_id,
        "video_id": decree.video_id,
        "sequence_num": decree.sequence_num,
        "epoch": instance.epoch,
        "generation": instance.config.generation,
        "acceptors": list(instance.config.acceptors),
        "mode": decree.mode.value,
        "size_bytes": decree.size_bytes,
        "checksum": bytes.fromhex(decree.checksum),
        "duration_ms": decree.duration_ms,
        "segment": decree.segment,
        "init_size_bytes": decree.init_size_bytes,
        "is_last": decree.last,
        "decree": value,
        "node_ids": [piece.node_id for piece in placed_pieces],
        "fragment_indexes": [piece.fragment_index for piece in placed_pieces],
        "statuses": ["active" if piece in durable else "missing" for piece in placed_pieces],
        "sizes": [piece.size_bytes if piece.is_fragment else None for piece in placed_pieces],
        "checksums": [bytes.fromhex(piece.checksum) if piece.is_fragment else None for piece in placed_pieces],
    }
    return await db.row(_SQL["record"], _Inserted, params) is not None
