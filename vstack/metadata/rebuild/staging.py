"""The working tables of a rebuild: what the nodes say comes in by pages, what was decided goes out by one statement.

Owns one connection and its temporary tables. Nothing here holds more than a page of rows in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg
from psycopg.rows import class_row

from vstack import checksums
from vstack.core.decree import Decree
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.metadata.catalogue import pieces
from vstack.metadata.postgres import database, statements
from vstack.metadata.rebuild.decisions import Decision, StateRow, Vote
from vstack.wire.consensus import AcceptorState as WireState
from vstack.wire.storage import StoredChunk

FETCH_ROWS: Final = 2000

_SQL = statements.load("rebuild")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a rebuild read and wrote. `orphans` are objects that no restored chunk places."""

    acceptor_states: int
    objects: int
    videos: int
    incomplete_videos: int
    chunks: int
    live_pieces: int
    orphans: int


@dataclass(frozen=True, slots=True)
class _Present:
    object_id: str
    node_id: str
    checksum: str


@dataclass(frozen=True, slots=True)
class _ChunkId:
    chunk_id: str


class Staging:
    """One rebuild's tables on one connection in autocommit mode. Nodes may be loaded concurrently."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()

    async def create(self) -> None:
        await self._connection.execute(_SQL["stage"])

    async def add_node(self, node_id: str, url: str) -> None:
        async with self._lock:
            await self._connection.execute(_SQL["add_node"], {"node_id": node_id, "url": url})

    async def add_states(self, node_id: str, states: Sequence[WireState]) -> None:
        """Stage a page of acceptor states. They count for the node that was asked."""
        await self._copy(
            "copy_states",
            (
                (
                    node_id,
                    state.chunk_id,
                    state.epoch,
                    state.generation,
                    list(state.acceptors),
                    state.promised_ballot,
                    state.accepted_ballot,
                    None if state.accepted_value is None else state.accepted_value.encode(),
                    state.learned,
                    state.retired,
                )
                for state in states
            ),
        )

    async def add_objects(self, node_id: str, stored: Sequence[StoredChunk]) -> None:
        """Stage a page of a node's inventory."""
        await self._copy(
            "copy_objects",
            (
                (chunk.chunk_id, node_id, bytes.fromhex(checksums.parse(chunk.checksum)), chunk.size_bytes)
                for chunk in stored
            ),
        )

    async def votes(self) -> AsyncIterator[tuple[str, list[Vote]]]:
        """Every chunk that any acceptor knows, with all its states. Other calls may come in between."""
        await self._connection.execute(_SQL["index_states"])
        async with (
            self._connection.transaction(),
            self._connection.cursor("states", row_factory=class_row(StateRow)) as cursor,
        ):
            cursor.itersize = FETCH_ROWS
            await cursor.execute(_SQL["states"])
            chunk_id, votes = None, list[Vote]()
            async for row in cursor:
                if row.chunk_id != chunk_id:
                    if chunk_id is not None:
                        yield chunk_id, votes
                    chunk_id, votes = row.chunk_id, []
                votes.append(_vote(row))
            if chunk_id is not None:
                yield chunk_id, votes

    async def present(self, object_ids: Iterable[str]) -> set[tuple[str, str, str]]:
        """(object id, node id, hex checksum) of those objects that a node holds."""
        found = await database.rows(
            self._connection, _SQL["present"], _Present, {"object_ids": sorted(set(object_ids))}
        )
        return {(row.object_id, row.node_id, row.checksum) for row in found}

    async def add_chosen(self, chosen: Sequence[tuple[Decision, Decree]]) -> None:
        """Stage decided chunks. Each chunk id is given once."""
        await self._copy("copy_chosen", (_chosen_row(decision, decree) for decision, decree in chosen))
        await self._copy(
            "copy_pieces",
            (
                (
                    decision.instance.chunk_id,
                    piece.object_id,
                    piece.node_id,
                    piece.fragment_index,
                    bytes.fromhex(piece.checksum),
                    piece.size_bytes,
                    piece.is_fragment,
                )
                for decision, decree in chosen
                for piece in pieces.of(decision.instance.chunk_id, decree)
            ),
        )

    async def apply(self) -> tuple[Figures, list[str]]:
        """Write rows for all that is staged, in one transaction; what it came to, and the chunks in conflict."""
        await self._connection.execute(_SQL["index_chosen"])
        async with self._connection.transaction():
            for step in (
                "restore_nodes",
                "restore_absent_nodes",
                "restore_generations",
                "restore_videos",
                "restore_chunks",
                "restore_replicas",
                "complete_videos",
            ):
                await self._connection.execute(_SQL[step])
        figures = await database.row(self._connection, _SQL["figures"], Figures)
        assert figures is not None
        conflicts = await database.rows(self._connection, _SQL["conflicts"], _ChunkId)
        return figures, [row.chunk_id for row in conflicts]

    async def _copy(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        async with self._lock, self._connection.cursor() as cursor, cursor.copy(_SQL[statement]) as copy:
            for row in rows:
                await copy.write_row(row)


def _vote(row: StateRow) -> Vote:
    instance = Instance(row.chunk_id, row.epoch, Config(row.generation, tuple(row.acceptors)))
    state = AcceptorState(
        instance, row.promised, row.accepted_ballot, row.accepted_value, learned=row.learned, retired=row.retired
    )
    return Vote(row.node_id, state)


def _chosen_row(decision: Decision, decree: Decree) -> Sequence[object]:
    instance = decision.instance
    return (
        instance.chunk_id,
        decree.video_id,
        decree.sequence_num,
        instance.epoch,
        instance.config.generation,
        list(instance.config.acceptors),
        decree.mode.value,
        decree.size_bytes,
        bytes.fromhex(decree.checksum),
        decree.duration_ms,
        decree.segment,
        decree.init_size_bytes,
        decree.last,
        decision.value,
        decree.title.replace("\0", "") or decree.video_id,
        datetime.fromtimestamp(decree.created_at_ms / 1000, UTC),
        decree.next_generation,
    )
