"""Removes the data of dying videos: deleted ones, failed ones, and uploads that were abandoned.

For one video, in this order: instances that no row tells of are aborted, so that a late commit fails; every instance is
retired at a majority of its acceptors, so that no rebuild brings the chunk back; only then are objects deleted, node by
node; when no node holds anything more, the rows go. A node that is down is waited for, and finished when it is back.

Invariants: one instance at a time does this; each step may be repeated, so a restart goes on where progress was noted;
no object is deleted before a majority of its chunk's acceptors has durably forgotten the chunk for good.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from vstack import ids
from vstack.core.paxos.messages import Instance
from vstack.core.placement import Generation, config_for
from vstack.errors import ConflictError, UnavailableError, VStackError
from vstack.metadata.catalogue import nodes
from vstack.metadata.catalogue.chunks import ChunkRow
from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.deciding.commit_rules import FIRST_EPOCH
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.deciding.learning import Learner
from vstack.metadata.metrics import MetadataMetrics
from vstack.metadata.postgres import statements
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock
from vstack.rpc.storage import StorageClient
from vstack.wire.metadata import VideoStatus

INTERVAL_S: Final = 5.0
PAGE: Final = 256
MAX_CONCURRENT_CALLS: Final = 8

_SQL = statements.load("reaper")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Dying:
    video_id: str
    status: VideoStatus
    generation: int


@dataclass(frozen=True, slots=True)
class _Count:
    videos: int


@dataclass(frozen=True, slots=True)
class _NodeKey:
    node_key: int


@dataclass(frozen=True, slots=True)
class _ChunkId:
    chunk_id: str


@dataclass(frozen=True, slots=True)
class _PieceRow:
    chunk_id: str
    sequence_num: int
    fragment_index: int

    @property
    def object_id(self) -> str:
        return self.chunk_id if self.fragment_index < 0 else ids.fragment_id(self.chunk_id, self.fragment_index)


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The nodes as the reaping of one video sees them: those that are not `done` may still hold something of it."""

    nodes: tuple[StorageNode, ...]
    done: frozenset[str]

    @property
    def ids(self) -> frozenset[str]:
        """Every node that may still vote, up or down: all but those whose disk is gone."""
        return frozenset(node.node_id for node in self.nodes)

    @property
    def urls(self) -> Mapping[str, str]:
        """The nodes that are up."""
        return {node.node_id: node.url for node in self.nodes if node.status != "down"}

    @property
    def pending(self) -> tuple[StorageNode, ...]:
        """The nodes that are not done."""
        return tuple(node for node in self.nodes if node.node_id not in self.done)

    @property
    def reachable(self) -> tuple[StorageNode, ...]:
        """The nodes that are not done, and up."""
        return tuple(node for node in self.pending if node.status != "down")


class Reaper:
    """The job of one metadata instance."""

    def __init__(
        self,
        *,
        db: Database,
        generations: Generations,
        consensus: Consensus,
        learner: Learner,
        storage: StorageClient,
        metrics: MetadataMetrics,
        abandoned_after_s: float,
    ) -> None:
        self._db = db
        self._generations = generations
        self._consensus = consensus
        self._learner = learner
        self._storage = storage
        self._metrics = metrics
        self._abandoned_after_s = abandoned_after_s
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)

    async def run_once(self) -> None:
        """One pass over all dying videos, unless another instance is at it."""
        async with self._db.exclusively(Lock.REAPER) as ours:
            if not ours:
                return
            await self._db.execute(_SQL["give_up_abandoned"], {"abandoned_after_s": self._abandoned_after_s})
            async for video in self._dying():
                try:
                    await self._reap(video)
                except VStackError as error:
                    log.info("reaping_postponed", video_id=video.video_id, reason=str(error))
            left = await self._db.row(_SQL["count_dying"], _Count)
            self._metrics.set_reap_pending(left.videos if left is not None else 0)

    async def _dying(self) -> AsyncIterator[_Dying]:
        after = ""
        while page := await self._db.rows(_SQL["dying"], _Dying, {"after": after, "limit": PAGE}):
            for video in page:
                yield video
            after = page[-1].video_id

    async def _reap(self, video: _Dying) -> None:
        cluster = await self._cluster(video)
        if cluster.pending and not cluster.reachable:
            return  # all that is left waits for nodes that are down
        silent = await self._retire_all(video, cluster)
        for node in cluster.reachable:
            if node.node_id not in silent:
                await self._clear(video, node)
        if not (await self._cluster(video)).pending:
            await self._forget(video)

    async def _cluster(self, video: _Dying) -> _Cluster:
        done = {
            row.node_key for row in await self._db.rows(_SQL["reaped_nodes"], _NodeKey, {"video_id": video.video_id})
        }
        known = tuple(node for node in await nodes.all_nodes(self._db) if not node.superseded)
        return _Cluster(known, frozenset(node.node_id for node in known if node.node_key in done))

    async def _retire_all(self, video: _Dying, cluster: _Cluster) -> frozenset[str]:
        """Retire every instance of the video at a majority; return the nodes that are up and did not confirm theirs."""
        silent: set[str] = set()
        async for instances in self._committed(video):
            silent |= await self._retire(instances, cluster, retired=cluster.done)
        for instances in await self._unfinished(video, cluster):
            for instance in instances:
                await self._abort(video, instance, cluster)
            silent |= await self._retire(instances, cluster, retired=frozenset())
        return frozenset(silent)

    async def _committed(self, video: _Dying) -> AsyncIterator[list[Instance]]:
        after = -1
        params = {"video_id": video.video_id, "limit": PAGE}
        while page := await self._db.rows(_SQL["chunk_page"], ChunkRow, {**params, "after": after}):
            yield [row.instance for row in page]
            after = page[-1].sequence_num

    async def _unfinished(self, video: _Dying, cluster: _Cluster) -> list[list[Instance]]:
        """Instances that only the nodes know of: their chunks were stored, but never committed."""
        found: set[str] = set()
        for node in cluster.reachable:
            async for object_ids in self._inventory(video, node):
                owners = {_chunk_of(object_id) for object_id in object_ids}
                rows = await self._db.rows(_SQL["known"], _ChunkId, {"chunk_ids": sorted(owners)})
                found |= owners - {row.chunk_id for row in rows}
        if not found:
            return []
        generation = await self._generations.get(video.generation)
        if not generation.nodes:
            return []  # no acceptor can have been asked
        instances = [_first_instance(chunk_id, generation) for chunk_id in sorted(found)]
        return [instances[start : start + PAGE] for start in range(0, len(instances), PAGE)]

    async def _abort(self, video: _Dying, instance: Instance, cluster: _Cluster) -> None:
        parsed = ids.parse_chunk_id(instance.chunk_id)
        assert parsed is not None, "an inventory by video lists chunk ids of our form"
        try:
            await self._consensus.abort(instance, cluster.urls, video_id=video.video_id, sequence_num=parsed[1])
        except ConflictError:
            log.debug("already_retired", chunk_id=instance.chunk_id)

    async def _retire(
        self, instances: Sequence[Instance], cluster: _Cluster, *, retired: frozenset[str]
    ) -> frozenset[str]:
        """Retire a batch, which the nodes `retired` have confirmed before; return the acceptors that are up and did
        not confirm. UnavailableError without a majority.
        """
        confirmed = retired | await self._learner.retire(instances, cluster.urls)
        asked: set[str] = set()
        for instance in instances:
            living = cluster.ids.intersection(instance.config.acceptors)
            if len(living & confirmed) < min(instance.config.classic_quorum, len(living)):
                raise UnavailableError(f"too few acceptors of {instance.chunk_id} are up to retire it")
            asked |= living.intersection(cluster.urls)
        return frozenset(asked - confirmed)

    async def _clear(self, video: _Dying, node: StorageNode) -> None:
        """Delete everything of the video on one node, and note that nothing is left there."""
        try:
            async for object_ids in self._placed_on(video, node):
                await self._delete(node, object_ids)
            async for object_ids in self._inventory(video, node):
                await self._delete(node, object_ids)
        except VStackError as error:
            log.info("node_not_cleared", video_id=video.video_id, node_id=node.node_id, reason=str(error))
            return
        await self._db.execute(_SQL["node_done"], {"video_id": video.video_id, "node_key": node.node_key})

    async def _placed_on(self, video: _Dying, node: StorageNode) -> AsyncIterator[list[str]]:
        after = -1
        params = {"video_id": video.video_id, "node_key": node.node_key, "limit": PAGE}
        while page := await self._db.rows(_SQL["pieces_on_node"], _PieceRow, {**params, "after": after}):
            yield [piece.object_id for piece in page]
            after = page[-1].sequence_num

    async def _inventory(self, video: _Dying, node: StorageNode) -> AsyncIterator[list[str]]:
        after: str | None = None
        while True:
            page = await self._storage.inventory_page(node.url, after, video_id=video.video_id)
            yield [chunk.chunk_id for chunk in page.chunks]
            after = page.next
            if after is None:
                return

    async def _delete(self, node: StorageNode, object_ids: Iterable[str]) -> None:
        deleted = await asyncio.gather(*(self._delete_one(node, object_id) for object_id in object_ids))
        self._metrics.count_reaped_objects(sum(deleted))

    async def _delete_one(self, node: StorageNode, object_id: str) -> bool:
        async with self._slots:
            return await self._storage.delete_chunk(node.url, object_id)

    async def _forget(self, video: _Dying) -> None:
        """Remove the rows: nothing of the video is left on any node."""
        async with self._db.transaction() as connection:
            params = {"video_id": video.video_id}
            await connection.execute(_SQL["forget_chunks"], params)
            await connection.execute(_SQL["forget_progress"], params)
            await connection.execute(_SQL["forget_video" if video.status == "deleting" else "mark_reaped"], params)
        self._metrics.count_reaped_video()
        log.info("video_reaped", video_id=video.video_id, status=video.status)


def _chunk_of(object_id: str) -> str:
    parsed = ids.parse_fragment_id(object_id)
    return parsed[0] if parsed is not None else object_id


def _first_instance(chunk_id: str, generation: Generation) -> Instance:
    return Instance(chunk_id, FIRST_EPOCH, config_for(chunk_id, generation))
