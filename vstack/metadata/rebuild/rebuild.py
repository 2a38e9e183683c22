"""Makes the database again from the storage nodes: `vstack admin rebuild-metadata`.

Reads what every acceptor accepted and what every node holds, decides chunk by chunk what was chosen, and writes rows
for all of it. Works on an empty database, and on one that was restored from an old backup: rows that exist are never
changed to another value, and where they contradict the nodes the report says so. Running it again changes nothing.

Read every node that can be read: a value is proven by a quorum of its acceptors, and a deletion by any one of them.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog
from prometheus_client import CollectorRegistry

from vstack.core.decree import Decree
from vstack.errors import ConflictError, InvalidRequestError, RemoteError, UnavailableError, VStackError
from vstack.metadata.catalogue import pieces
from vstack.metadata.deciding import commit_rules
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.postgres.connecting import connect
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock
from vstack.metadata.rebuild.decisions import Decision, Finding, find
from vstack.metadata.rebuild.staging import Staging
from vstack.rpc.http import new_session
from vstack.rpc.storage import StorageClient
from vstack.settings import MetadataSettings, cluster_key

BATCH_CHUNKS: Final = 500
MAX_CONCURRENT_ROUNDS: Final = 16
MAX_REPORTED: Final = 100

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild came to. `undecided` chunks have votes but no quorum, or no data; `conflicts` names at most
    MAX_REPORTED of the chunks where the database contradicts the nodes.
    """

    nodes: int
    acceptor_states: int
    objects: int
    videos: int
    incomplete_videos: int
    chunks: int
    live_pieces: int
    finished: int
    retired: int
    aborted: int
    undecided: int
    unreadable: int
    orphans: int
    conflict_count: int
    conflicts: tuple[str, ...]


@dataclass(slots=True)
class _Counts:
    finished: int = 0
    retired: int = 0
    aborted: int = 0
    undecided: int = 0
    unreadable: int = 0


async def rebuild(settings: MetadataSettings, node_urls: Sequence[str]) -> RebuildReport:
    """Rebuild from these storage nodes. InvalidRequestError, UnavailableError for a database that cannot be reached,
    ConflictError while another rebuild runs, RemoteError for a node that does not answer.
    """
    urls = list(dict.fromkeys(url.rstrip("/") for url in node_urls))
    if not urls:
        raise InvalidRequestError("name at least one storage node")
    key = cluster_key(settings)
    async with (
        Database(settings.database_url, pool_size=1) as db,
        db.exclusively(Lock.REBUILD) as ours,
        new_session() as session,
    ):
        if not ours:
            raise ConflictError("another rebuild is running")
        storage = StorageClient(session)
        async with Consensus(storage, key, 1 + secrets.randbelow(65_535), CollectorRegistry()) as consensus:
            try:
                async with await connect(settings.database_url) as connection:
                    return await _Rebuild(Staging(connection), storage, consensus).run(urls)
            except psycopg.OperationalError as error:
                raise UnavailableError(f"the database failed: {str(error).strip()}") from error


class _Rebuild:
    """One run."""

    def __init__(self, staging: Staging, storage: StorageClient, consensus: Consensus) -> None:
        self._staging = staging
        self._storage = storage
        self._consensus = consensus
        self._url_by_id: dict[str, str] = {}
        self._counts = _Counts()
        self._rounds = asyncio.Semaphore(MAX_CONCURRENT_ROUNDS)

    async def run(self, urls: Sequence[str]) -> RebuildReport:
        await self._staging.create()
        try:
            async with asyncio.TaskGroup() as group:
                for url in urls:
                    group.create_task(self._load(url))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        async for batch in self._batches():
            await self._settle(batch)
        figures, conflicts = await self._staging.apply()
        counts = self._counts
        return RebuildReport(
            nodes=len(self._url_by_id),
            acceptor_states=figures.acceptor_states,
            objects=figures.objects,
            videos=figures.videos,
            incomplete_videos=figures.incomplete_videos,
            chunks=figures.chunks,
            live_pieces=figures.live_pieces,
            finished=counts.finished,
            retired=counts.retired,
            aborted=counts.aborted,
            undecided=counts.undecided,
            unreadable=counts.unreadable,
            orphans=figures.orphans,
            conflict_count=len(conflicts),
            conflicts=tuple(conflicts[:MAX_REPORTED]),
        )

    async def _load(self, url: str) -> None:
        """Stage all that one node says."""
        pong = await self._storage.ping(url)
        if not pong.node_id or pong.node_id in self._url_by_id:
            raise RemoteError(f"{url} is no storage node, or answers as one that was named before: {pong.node_id!r}")
        self._url_by_id[pong.node_id] = url
        await self._staging.add_node(pong.node_id, url)
        after: str | None = None
        while True:
            states = await self._storage.acceptor_page(url, after)
            await self._staging.add_states(pong.node_id, states.states)
            after = states.next
            if after is None:
                break
        while True:
            inventory = await self._storage.inventory_page(url, after)
            await self._staging.add_objects(pong.node_id, inventory.chunks)
            after = inventory.next
            if after is None:
                break
        log.info("node_read", node_id=pong.node_id)

    async def _batches(self) -> AsyncIterator[list[Finding]]:
        batch: list[Finding] = []
        async for chunk_id, votes in self._staging.votes():
            batch.append(find(chunk_id, votes))
            if len(batch) == BATCH_CHUNKS:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _settle(self, batch: Sequence[Finding]) -> None:
        """Finish what is open, and stage what is chosen."""
        wanted = [finding for finding in batch if not finding.retired]
        self._counts.retired += len(batch) - len(wanted)
        objects = await self._objects(wanted)
        decided = await asyncio.gather(*(self._decided(finding, objects) for finding in wanted))
        chosen = []
        for decision in decided:
            if decision is None:
                self._counts.undecided += 1
                continue
            decree = commit_rules.readable(decision.value, decision.instance.chunk_id)
            if decree is not None:
                chosen.append((decision, decree))
            elif commit_rules.is_abort(decision.value):
                self._counts.aborted += 1
            else:
                log.error("unreadable_value", chunk_id=decision.instance.chunk_id)
                self._counts.unreadable += 1
        await self._staging.add_chosen(chosen)

    async def _objects(self, findings: Sequence[Finding]) -> set[tuple[str, str, str]]:
        """What is stored of the chunks with open instances."""
        wanted = [piece.object_id for finding in findings for decision in finding.open for piece in _pieces(decision)]
        return await self._staging.present(wanted) if wanted else set()

    async def _decided(self, finding: Finding, objects: set[tuple[str, str, str]]) -> Decision | None:
        """The decision of a chunk's highest decided epoch; None where none can be had now."""
        for decision in finding.open:
            held = any((piece.object_id, piece.node_id, piece.checksum) in objects for piece in _pieces(decision))
            finished = await self._finish(decision) if held else None
            if finished is not None:
                self._counts.finished += 1
                return finished
        return finding.chosen

    async def _finish(self, decision: Decision) -> Decision | None:
        async with self._rounds:
            try:
                value = await self._consensus.decide(decision.instance, decision.value, self._url_by_id)
            except VStackError as error:
                log.warning("chunk_not_finished", chunk_id=decision.instance.chunk_id, reason=str(error))
                return None
        return Decision(decision.instance, value)


def _pieces(decision: Decision) -> Sequence[pieces.Piece]:
    decree: Decree | None = commit_rules.readable(decision.value, decision.instance.chunk_id)
    return () if decree is None else pieces.of(decision.instance.chunk_id, decree)
