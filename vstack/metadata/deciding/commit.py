"""Commits a chunk: proof of durability, one decision by ChunkPaxos, one row in Postgres.

The order is what makes it safe. The named nodes prove that they hold the bytes durably, so that a committed chunk can
be read; then the acceptors choose; then the row records what they chose, whoever proposed it; then, off this path, the
acceptors learn. Every step may be repeated by any instance: the decision cannot change, the insert adds nothing twice.

Invariant: the row of a chunk equals the value that its acceptors chose.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import structlog

from vstack import checksums
from vstack.core.decree import Decree, Mode, VideoFacts
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.receipts import Receipt
from vstack.core.placement import config_for
from vstack.errors import ConflictError, NotFoundError, UnavailableError, VStackError
from vstack.metadata.catalogue import chunks, nodes, pieces, videos
from vstack.metadata.catalogue.chunks import ChunkRow
from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.catalogue.pieces import Piece
from vstack.metadata.deciding import commit_rules as rules
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.deciding.learning import Learner
from vstack.metadata.metrics import MetadataMetrics
from vstack.metadata.postgres.database import Database
from vstack.rpc.storage import StorageClient
from vstack.wire.consensus import receipt_from_text
from vstack.wire.metadata import CommitReply, CommitRequest

RETRY_AFTER_S: Final = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One commit under way. `value` is the encoded `decree`; `nodes` are all that ever registered."""

    instance: Instance
    decree: Decree
    value: bytes
    nodes: Sequence[StorageNode]
    receipts: tuple[Receipt, ...]

    @property
    def url_by_id(self) -> Mapping[str, str]:
        return _url_by_id(self.nodes)


class Committer:
    """Commits for one metadata instance."""

    def __init__(
        self,
        *,
        db: Database,
        generations: Generations,
        consensus: Consensus,
        learner: Learner,
        storage: StorageClient,
        cluster_key: bytes,
        metrics: MetadataMetrics,
    ) -> None:
        self._db = db
        self._generations = generations
        self._consensus = consensus
        self._learner = learner
        self._storage = storage
        self._cluster_key = cluster_key
        self._metrics = metrics

    async def commit(self, chunk_id: str, request: CommitRequest) -> CommitReply:
        """Commit, or find the chunk committed with this very value.

        InvalidRequestError; NotFoundError for an unknown video; ConflictError with the chosen value where another one
        won, or where the video takes no chunks; UnavailableError where too few copies are durable or no quorum answers.
        """
        started = time.perf_counter()
        outcome = "internal"
        try:
            reply = await self._commit(chunk_id, request)
            outcome = "degraded" if reply.degraded else "committed"
            return reply
        except VStackError as error:
            outcome = error.code
            raise
        finally:
            self._metrics.observe_commit(outcome, time.perf_counter() - started)

    async def _commit(self, chunk_id: str, request: CommitRequest) -> CommitReply:
        rules.check_chunk_id(chunk_id, request.video_id, request.sequence_num)
        receipts = tuple(receipt_from_text(text) for text in request.receipts)
        video = await videos.facts(self._db, request.video_id)
        if video is None:
            raise NotFoundError(f"no video {request.video_id}")
        known = await nodes.all_nodes(self._db)
        url_by_id = _url_by_id(known)
        generation = await videos.pinned(self._db, self._generations, video)
        facts = VideoFacts(video.video_id, video.title, video.created_at_ms, generation.number)
        decree = rules.build_decree(request, facts, {url: node_id for node_id, url in url_by_id.items()})
        needed = rules.copies_needed(decree.mode, len(decree.placements), len(url_by_id))
        value = decree.encode()
        if video.status in ("deleting", "failed"):
            raise ConflictError(f"video {video.video_id} is {video.status}")
        rows = await chunks.claims(self._db, chunk_id, request.video_id, request.sequence_num)
        if rows:
            return await self._already_there(chunk_id, value, rows, url_by_id)
        if video.status == "active" or video.restored:
            raise ConflictError(f"video {video.video_id} takes no more chunks")
        if not generation.nodes:
            raise UnavailableError("no storage node is up to decide on a chunk", retry_after_s=RETRY_AFTER_S)
        attempt = _Attempt(
            instance=Instance(chunk_id, rules.FIRST_EPOCH, config_for(chunk_id, generation)),
            decree=decree,
            value=value,
            nodes=known,
            receipts=receipts,
        )
        return await self._decide(attempt, needed)

    async def _decide(self, attempt: _Attempt, needed: int) -> CommitReply:
        instance = attempt.instance
        durable = await self._durable(attempt, needed)
        if len(durable) < needed:
            raise UnavailableError(
                f"{len(durable)} of {len(attempt.decree.placements)} nodes hold chunk {instance.chunk_id} durably, "
                f"{needed} are needed",
                retry_after_s=RETRY_AFTER_S,
            )
        acceptors = _acceptor_urls(instance, attempt.nodes)
        chosen = await self._consensus.decide(instance, attempt.value, acceptors, attempt.receipts)
        if chosen == attempt.value:
            await self._record(instance, chosen, attempt.decree, durable, acceptors)
            return _reply(instance.chunk_id, attempt.decree, attempt.url_by_id, live=len(durable))
        raise await self._lost(attempt, chosen, acceptors)

    async def _durable(self, attempt: _Attempt, needed: int) -> frozenset[Piece]:
        """Which pieces are durable: by their receipts, and where these are too few, by asking the nodes."""
        wanted = pieces.of(attempt.instance.chunk_id, attempt.decree)
        by_receipt = rules.proven(wanted, attempt.instance.chunk_id, attempt.receipts, self._cluster_key)
        if len(by_receipt) >= needed:
            return by_receipt
        return by_receipt | await self._held([piece for piece in wanted if piece not in by_receipt], attempt.url_by_id)

    async def _held(self, wanted: Sequence[Piece], url_by_id: Mapping[str, str]) -> frozenset[Piece]:
        """The pieces that their nodes say they hold. A node answers HEAD only for what survives a power cut."""
        answers = await asyncio.gather(*(self._holds(piece, url_by_id.get(piece.node_id)) for piece in wanted))
        return frozenset(piece for piece, held in zip(wanted, answers, strict=True) if held)

    async def _holds(self, piece: Piece, url: str | None) -> bool:
        if url is None:
            return False
        try:
            head = await self._storage.head_chunk(url, piece.object_id)
        except VStackError as error:
            log.info("node_not_asked", node_id=piece.node_id, object_id=piece.object_id, error=str(error))
            return False
        return head is not None and (head.checksum, head.size_bytes) == (piece.checksum, piece.size_bytes)

    async def _record(
        self,
        instance: Instance,
        chosen: bytes,
        decree: Decree,
        durable: AbstractSet[Piece],
        acceptors: Mapping[str, str],
    ) -> None:
        """Make the row of the chosen value, or see that another instance made it."""
        if not await chunks.record(self._db, instance, chosen, decree, durable):
            rows = await chunks.claims(self._db, instance.chunk_id, decree.video_id, decree.sequence_num)
            if not any(row.chunk_id == instance.chunk_id and row.decree == chosen for row in rows):
                log.warning("chosen_value_without_row", chunk_id=instance.chunk_id, rows=[row.chunk_id for row in rows])
                raise ConflictError(
                    f"video {decree.video_id} takes no more chunks, or has another number {decree.sequence_num}"
                )
        self._learner.learn(instance, chosen, acceptors)

    async def _lost(self, attempt: _Attempt, chosen: bytes, acceptors: Mapping[str, str]) -> ConflictError:
        """Another value was chosen: record that one, so that row and decision agree, and return what says so."""
        instance = attempt.instance
        decree = rules.understood(
            chosen, instance.chunk_id, attempt.decree.video_id, {node.node_id for node in attempt.nodes}
        )
        if decree is None:
            return ConflictError(f"chunk {instance.chunk_id} was given up before it was committed")
        held = await self._held(pieces.of(instance.chunk_id, decree), attempt.url_by_id)
        await self._record(instance, chosen, decree, held, acceptors)
        return _conflict(instance.chunk_id, decree, attempt.url_by_id)

    async def _already_there(
        self, chunk_id: str, value: bytes, rows: Sequence[ChunkRow], url_by_id: Mapping[str, str]
    ) -> CommitReply:
        row = next((row for row in rows if row.chunk_id == chunk_id), None)
        if row is None:
            other = rows[0]
            raise ConflictError(f"number {other.sequence_num} of video {other.video_id} is chunk {other.chunk_id}")
        decree = Decree.decode(row.decree)
        if row.decree != value:
            raise _conflict(chunk_id, decree, url_by_id)
        live = [piece for piece in await chunks.placed(self._db, chunk_id) if piece.status == "active"]
        return _reply(chunk_id, decree, url_by_id, live=len(live))


def _url_by_id(known: Iterable[StorageNode]) -> dict[str, str]:
    return {node.node_id: node.url for node in known if not node.superseded}


def _acceptor_urls(instance: Instance, known: Iterable[StorageNode]) -> dict[str, str]:
    """Where the acceptors can be asked. Those that are down are left out, so that no round waits for them in vain,
    unless no quorum would remain: they may have come back since.
    """
    named = [node for node in known if node.node_id in instance.config.acceptors]
    up = _url_by_id(node for node in named if node.status != "down")
    return up if len(up) >= instance.config.classic_quorum else _url_by_id(named)


def _reply(chunk_id: str, decree: Decree, url_by_id: Mapping[str, str], *, live: int) -> CommitReply:
    urls = _urls(decree, url_by_id)
    placed = len(decree.placements)
    message = f"Chunk {chunk_id} committed to {len(urls)} nodes"
    return CommitReply(
        success=True,
        committed_nodes=urls,
        message=f"{message}, {live} of them durable so far" if live < placed else message,
        degraded=live < max(placed, rules.copies_wanted(decree.mode, len(url_by_id))),
    )


def _conflict(chunk_id: str, decree: Decree, url_by_id: Mapping[str, str]) -> ConflictError:
    assert decree.mode is not Mode.ABORT
    return ConflictError(
        f"chunk {chunk_id} is committed with another value",
        chosen={
            "committed_nodes": _urls(decree, url_by_id),
            "checksum": checksums.text(decree.checksum),
            "size_bytes": decree.size_bytes,
        },
    )


def _urls(decree: Decree, url_by_id: Mapping[str, str]) -> tuple[str, ...]:
    """The URLs of a decree's nodes, in its order. A node that is superseded has none."""
    return tuple(url_by_id[node_id] for node_id in decree.node_ids if node_id in url_by_id)
