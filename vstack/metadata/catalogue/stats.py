"""Figures over all rows, counted when they are asked for."""

from dataclasses import dataclass

from vstack.metadata.postgres import statements
from vstack.metadata.postgres.database import Database
from vstack.wire.metadata import ChunkMode

_SQL = statements.load("stats")


@dataclass(frozen=True, slots=True)
class Totals:
    """`replicas` and `fragments` count live ones."""

    videos: int
    chunks: int
    replicas: int
    fragments: int


@dataclass(frozen=True, slots=True)
class ModeBytes:
    """What one redundancy mode holds: bytes of video, and bytes on disks for them."""

    mode: ChunkMode
    chunks: int
    logical_bytes: int
    physical_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    chunks: int
    degraded: int


@dataclass(frozen=True, slots=True)
class _VideoCount:
    status: str
    videos: int


async def totals(db: Database) -> Totals:
    found = await db.row(_SQL["totals"], Totals)
    assert found is not None
    return found


async def overhead(db: Database) -> dict[ChunkMode, ModeBytes]:
    """By mode; one that no chunk has is left out."""
    return {row.mode: row for row in await db.rows(_SQL["overhead"], ModeBytes)}


async def videos_by_status(db: Database) -> dict[str, int]:
    return {row.status: row.videos for row in await db.rows(_SQL["videos_by_status"], _VideoCount)}


async def chunk_counts(db: Database) -> ChunkCounts:
    found = await db.row(_SQL["chunk_counts"], ChunkCounts)
    assert found is not None
    return found
