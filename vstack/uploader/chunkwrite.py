"""Makes one chunk durable on its nodes and gets its placement decided: the uploader's side of ChunkPaxos.

The placement is proposed at the fast ballot on the PUTs themselves. Three rules keep a chunk committable whatever two
of five nodes do in the meantime:

- The placement is the *intended* one. With a write quorum of it durable it is committed as it is; a copy that failed is
  filled in later without a new decree.
- Acceptors that hold no copy are asked for their vote only once a write quorum is durable. Asked earlier, they could
  bind the consensus to a placement whose nodes have died with the bytes, and no commit could ever follow.
- Below a write quorum the failed nodes are replaced. That is another value, so the fast round is over and classic
  rounds at the metadata service decide. If they find the earlier placement (its nodes came back and had accepted it),
  the commit is answered with it, and the bytes go where it says.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import structlog

from vstack import checksums
from vstack.core.decree import Decree, VideoFacts
from vstack.core.fmp4.chunk import PackedChunk
from vstack.core.paxos.config import FAST_BALLOT
from vstack.core.placement import Generation, Node, config_for
from vstack.errors import ConflictError, RemoteError, StorageFullError, UnavailableError, VStackError
from vstack.ids import chunk_id
from vstack.rpc.http import backoff_s
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.units import REPLICATION_FACTOR, REPLICATION_WRITE_QUORUM
from vstack.uploader.metrics import Metrics
from vstack.uploader.nodes import NodeDirectory
from vstack.wire.consensus import AcceptRequest, ConfigBody, Proposal
from vstack.wire.metadata import CommitReply, CommitRequest, VideoCreated

PUT_DEADLINE_S: Final = 15.0
SLOW_PUT_S: Final = 4.0
"""Without a write quorum after this time, slow nodes are replaced as if they had failed."""
GRACE_S: Final = 4.0
"""With a write quorum, how long the other copies and votes are waited for before the commit."""
PATIENCE_S: Final = 300.0
"""How long a chunk is tried again while nodes or the metadata service are away: longer than all hosts take to boot."""
EPOCH: Final = 0
CUT_DIFFERENTLY: Final = (
    "the file is cut differently than before the uploader was restarted (another version of ffmpeg?); please upload it "
    "again"
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whom an upload talks to."""

    metadata: MetadataClient
    storage: StorageClient
    nodes: NodeDirectory
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Target:
    """What all chunks of a video share."""

    facts: VideoFacts
    generation: Generation

    @classmethod
    def of(cls, created: VideoCreated, title: str) -> "Target":
        """The target that a registration opens."""
        members = tuple(Node(node.node_id, node.host, node.weight, node.zone) for node in created.generation.nodes)
        created_at_ms = round(datetime.fromisoformat(created.created_at).timestamp() * 1000)
        return cls(
            VideoFacts(created.video_id, title, created_at_ms, created.generation.number),
            Generation(created.generation.number, members),
        )


class ChunkWrite:
    """The way of one chunk to its commit. `run` it, then `follow` copies that were late, then `close` in any case."""

    def __init__(self, chunk: PackedChunk, target: Target, cluster: Cluster) -> None:
        self._chunk = chunk
        self._target = target
        self._cluster = cluster
        self._chunk_id = chunk_id(target.facts.video_id, chunk.number)
        self._checksum = checksums.of(chunk.data)
        self._config = config_for(self._chunk_id, target.generation)
        self._placement = cluster.nodes.choose(self._chunk_id, target.generation, REPLICATION_FACTOR)
        self._required = min(REPLICATION_WRITE_QUORUM, len(self._placement))
        self._fast = True
        """Whether the current placement is the first one, and no vote beyond those on the PUTs was asked for."""
        self._adopted = False
        """Whether the placement is the chosen one, which nobody can change any more."""
        self._holders: set[str] = set()
        self._receipts: dict[str, str] = {}
        self._puts: dict[str, asyncio.Task[None]] = {}
        self._refusal: ConflictError | None = None
        """A node's final word: the chunk was given up, or cut differently by an earlier run of the upload."""

    async def run(self) -> None:
        """Returns when the chunk is committed with at least a write quorum of durable copies."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        for attempt in itertools.count():
            try:
                await self._store()
                await self._settle()
                self._count(await self._commit())
                return
            except ConflictError as error:
                self._adopt(error)
                last: VStackError = error
            except (UnavailableError, RemoteError, StorageFullError) as error:
                last = error
            if time.monotonic() > give_up_at_s:
                raise last
            log.info("chunk_retried", chunk_id=self._chunk_id, error=str(last))
            self._cluster.metrics.retries.labels("chunk").inc()
            await asyncio.sleep(backoff_s(attempt))

    @property
    def late(self) -> bool:
        """Whether a copy is still under way after the commit."""
        return bool(self._pending())

    async def follow(self) -> None:
        """Wait for late copies, each up to its deadline."""
        await asyncio.wait(self._pending())

    async def close(self) -> None:
        """Leave no task behind."""
        for task in self._puts.values():
            task.cancel()
        await asyncio.gather(*self._puts.values(), return_exceptions=True)

    async def _store(self) -> None:
        """Returns when a write quorum of the placement is durable."""
        self._put_missing()
        tried = set(self._placement)
        replace_at_s = time.monotonic() + SLOW_PUT_S
        while len(self._durable()) < self._required:
            pending = self._pending()
            left_s = replace_at_s - time.monotonic()
            if (not pending or left_s <= 0) and self._replace(tried):
                self._put_missing()
                tried |= set(self._placement)
                replace_at_s = time.monotonic() + SLOW_PUT_S
            elif not pending and self._refusal is not None:
                raise self._refusal
            elif not pending:
                raise UnavailableError(
                    f"{self._chunk_id} is durable on {len(self._durable())} nodes and needs {self._required}"
                )
            else:
                timeout_s = left_s if left_s > 0 else None
                await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def _replace(self, tried: set[str]) -> bool:
        """Choose other nodes in the place of those that failed or hang; False where there are none left to try."""
        if self._adopted:
            return False
        for node_id in set(self._placement) - self._holders:
            self._cluster.nodes.suspect(node_id)
        kept = tuple(sorted(self._durable()))
        placement = self._cluster.nodes.choose(self._chunk_id, self._target.generation, REPLICATION_FACTOR, held=kept)
        if all(self._cluster.nodes.is_down(node_id) for node_id in set(placement) - tried):
            return False
        log.warning("chunk_replaced", chunk_id=self._chunk_id, before=self._placement, after=placement)
        self._cluster.metrics.retries.labels("placement").inc()
        self._placement, self._fast = placement, False
        return True

    async def _settle(self) -> None:
        """Give the remaining copies, and the votes of acceptors without one, a moment to arrive."""
        votes = self._ask_bystanders()
        waiting = self._pending() | votes
        if not waiting:
            return
        try:
            await asyncio.wait(waiting, timeout=GRACE_S)
        finally:
            for vote in votes:
                vote.cancel()
            await asyncio.gather(*votes, return_exceptions=True)
        for node_id in set(self._placement) - self._holders:
            self._cluster.nodes.suspect(node_id)

    def _put_missing(self) -> None:
        proposal = Proposal(epoch=EPOCH, config=ConfigBody.of(self._config), value=self._value())
        under_way = {node_id for node_id, task in self._puts.items() if not task.done()}
        for node_id in self._placement:
            if node_id not in self._holders | under_way and not self._cluster.nodes.is_down(node_id):
                self._puts[node_id] = asyncio.create_task(self._put(node_id, proposal))

    async def _put(self, node_id: str, proposal: Proposal) -> None:
        metrics = self._cluster.metrics.chunk_put_seconds
        started_s = time.perf_counter()
        try:
            stored = await self._cluster.storage.put_chunk(
                self._cluster.nodes.url(node_id),
                self._chunk_id,
                self._chunk.data,
                checksum=self._checksum,
                proposal=proposal,
                timeout_s=PUT_DEADLINE_S,
            )
        except VStackError as error:
            metrics.labels("failed").observe(time.perf_counter() - started_s)
            log.warning("put_failed", chunk_id=self._chunk_id, node_id=node_id, code=error.code, error=str(error))
            if isinstance(error, ConflictError):
                self._refusal = error
            else:
                self._cluster.nodes.suspect(node_id)
            return
        metrics.labels("stored").observe(time.perf_counter() - started_s)
        self._cluster.nodes.trust(node_id)
        self._holders.add(node_id)
        if stored.receipt is not None:
            self._receipts[node_id] = stored.receipt

    def _ask_bystanders(self) -> set[asyncio.Task[None]]:
        """Send the rest of the fast round, once; suspects are left to the classic rounds."""
        if not self._fast:
            return set()
        self._fast = False
        request = AcceptRequest(
            epoch=EPOCH, config=ConfigBody.of(self._config), ballot=FAST_BALLOT, value=self._value()
        )
        nodes = self._cluster.nodes
        return {
            asyncio.create_task(self._ask(node_id, request))
            for node_id in self._config.acceptors
            if node_id not in self._placement and not nodes.is_down(node_id) and not nodes.is_suspect(node_id)
        }

    async def _ask(self, node_id: str, request: AcceptRequest) -> None:
        try:
            reply = await self._cluster.storage.accept(self._cluster.nodes.url(node_id), self._chunk_id, request)
        except VStackError as error:
            log.info("vote_missing", chunk_id=self._chunk_id, node_id=node_id, error=str(error))
            self._cluster.nodes.suspect(node_id)
            return
        if reply.receipt is not None:
            self._receipts[node_id] = reply.receipt

    async def _commit(self) -> CommitReply:
        chunk = self._chunk
        request = CommitRequest(
            node_urls=tuple(self._cluster.nodes.url(node_id) for node_id in self._placement),
            checksum=checksums.text(self._checksum),
            size_bytes=len(chunk.data),
            video_id=self._target.facts.video_id,
            sequence_num=chunk.number,
            receipts=tuple(self._receipts.values()),
            duration_ms=chunk.duration_ms,
            segment=chunk.segment,
            init_size_bytes=chunk.init_size_bytes,
            last=chunk.last,
        )
        return await self._cluster.metadata.commit_chunk(self._chunk_id, request)

    def _adopt(self, conflict: ConflictError) -> None:
        """Take over the placement that was chosen instead of ours; raises where that is no placement of these bytes."""
        try:
            chosen = msgspec.convert(conflict.chosen, _Chosen)
        except msgspec.ValidationError:
            raise conflict from None
        node_ids = [self._cluster.nodes.node_id_at(url) for url in chosen.committed_nodes]
        placement = [node_id for node_id in node_ids if node_id is not None]
        if checksums.parse(chosen.checksum) != self._checksum:
            raise ConflictError(CUT_DIFFERENTLY) from conflict
        if self._adopted or not placement:
            raise conflict
        log.warning("chunk_adopted", chunk_id=self._chunk_id, ours=self._placement, chosen=placement)
        self._placement, self._adopted, self._fast = placement, True, False

    def _count(self, reply: CommitReply) -> None:
        self._cluster.metrics.chunk_commits.labels("degraded" if reply.degraded else "full").inc()

    def _value(self) -> str:
        chunk = self._chunk
        return (
            Decree.for_copies(
                self._placement,
                video=self._target.facts,
                sequence_num=chunk.number,
                checksum=self._checksum,
                size_bytes=len(chunk.data),
                duration_ms=chunk.duration_ms,
                segment=chunk.segment,
                init_size_bytes=chunk.init_size_bytes,
                last=chunk.last,
            )
            .encode()
            .decode()
        )

    def _durable(self) -> set[str]:
        return self._holders & set(self._placement)

    def _pending(self) -> set[asyncio.Task[None]]:
        """PUTs of the current placement that are under way."""
        return {task for node_id, task in self._puts.items() if node_id in self._placement and not task.done()}


class _Chosen(msgspec.Struct):
    """What a 409 reports: the bytes that a node holds, or the placement that was decided."""

    checksum: str
    committed_nodes: tuple[str, ...] = ()
