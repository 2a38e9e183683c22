"""Tells acceptors what was chosen (LEARN) and what was deleted for good (RETIRE).

LEARN runs off the commit path: batched by node, sent by one background task, dropped where a node is gone or the queue
is full. A drop is safe, because the acceptances of a quorum prove the same; a learned value only spares a later reader
the quorum and lets acceptors drop earlier epochs. RETIRE is the opposite: the caller repeats it until every acceptor
has confirmed.

Invariants: at most MAX_PENDING_ITEMS wait; a batch is one request of at most MAX_BATCH_ITEMS, durable under one flush;
one node that hangs delays the others by at most the client's time limit.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from prometheus_client import CollectorRegistry, Counter

from vstack.core.paxos.messages import Instance
from vstack.errors import VStackError
from vstack.wire.consensus import ConfigBody, LearnItem, LearnReply, LearnRequest

MAX_PENDING_ITEMS: Final = 20_000
MAX_BATCH_ITEMS: Final = 256
GATHER_S: Final = 0.05
"""How long the first item of a batch waits for company."""
CLOSE_TIMEOUT_S: Final = 3.0

log = structlog.get_logger()


class LearnClient(Protocol):
    """What this module needs of `vstack.rpc.storage.StorageClient`. Raises VStackError, and no other."""

    async def learn(self, node_url: str, request: LearnRequest) -> LearnReply: ...


@dataclass(frozen=True, slots=True)
class _Target:
    node_id: str
    url: str


class Learner:
    """An async context manager: its background task lives inside the block, and what waits is sent at its end."""

    def __init__(self, client: LearnClient, registry: CollectorRegistry) -> None:
        self._client = client
        self._pending: dict[_Target, list[LearnItem]] = defaultdict(list)
        self._pending_items = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._items = Counter(
            "vstack_metadata_learn_items_total",
            "Chosen values told to acceptors: learned, refused, or dropped",
            ("outcome",),
            registry=registry,
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="learner")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, CLOSE_TIMEOUT_S)
        self._drop(self._pending_items, "closed")

    def learn(self, instance: Instance, value: bytes, urls: Mapping[str, str]) -> None:
        """Have the acceptors of `instance` that have a URL told that `value` was chosen. Returns at once."""
        item = _item(instance, value)
        for target in _targets(instance, urls):
            if self._pending_items >= MAX_PENDING_ITEMS:
                self._drop(1, "queue full")
                continue
            self._pending[target].append(item)
            self._pending_items += 1
        self._wake.set()

    async def retire(self, instances: Sequence[Instance], urls: Mapping[str, str]) -> set[str]:
        """Retire chunks at their acceptors; return the node ids that hold all of theirs retired durably.

        An acceptor without a URL, or one that fails or refuses, is not among them: call again until all are.
        """
        work: dict[_Target, list[LearnItem]] = defaultdict(list)
        for instance in instances:
            for target in _targets(instance, urls):
                work[target].append(_item(instance, None))
        confirmed = await asyncio.gather(*(self._send_all(target, items) for target, items in work.items()))
        return {target.node_id for target, done in zip(work, confirmed, strict=True) if done == len(work[target])}

    async def _run(self) -> None:
        while not (self._closing and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            if not self._closing:
                await asyncio.sleep(GATHER_S)
            work, self._pending = self._pending, defaultdict(list)
            self._pending_items = 0
            try:
                await asyncio.gather(*(self._teach(target, items) for target, items in work.items()))
            except Exception:
                log.exception("learner_failed")

    async def _teach(self, target: _Target, items: list[LearnItem]) -> None:
        learned = await self._send_all(target, items)
        self._items.labels("learned").inc(learned)
        if learned < len(items):
            self._drop(len(items) - learned, f"{target.node_id} refused or did not answer")

    async def _send_all(self, target: _Target, items: Sequence[LearnItem]) -> int:
        """How many of the items hold on the node, durably. Stops at the first batch that fails."""
        held = 0
        for start in range(0, len(items), MAX_BATCH_ITEMS):
            batch = tuple(items[start : start + MAX_BATCH_ITEMS])
            try:
                reply = await self._client.learn(target.url, LearnRequest(items=batch))
            except VStackError as error:
                log.info("acceptor_lost", node_id=target.node_id, error=str(error))
                break
            if reply.node_id != target.node_id:
                log.warning("acceptor_unusable", node_id=target.node_id, answered_by=reply.node_id)
                break
            held += reply.learned
        return held

    def _drop(self, count: int, reason: str) -> None:
        if count:
            self._items.labels("dropped").inc(count)
            log.warning("learn_dropped", items=count, reason=reason)


def _targets(instance: Instance, urls: Mapping[str, str]) -> Iterable[_Target]:
    return (_Target(node_id, urls[node_id]) for node_id in instance.config.acceptors if node_id in urls)


def _item(instance: Instance, value: bytes | None) -> LearnItem:
    return LearnItem(
        chunk_id=instance.chunk_id,
        epoch=instance.epoch,
        config=ConfigBody.of(instance.config),
        value=None if value is None else value.decode(),
    )
