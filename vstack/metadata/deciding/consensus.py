"""Drives ChunkPaxos against real acceptors: carries the messages of a `Proposer`, and waits.

Owns time and chance: deadlines, backoff between rounds, what is in flight. Which value may be proposed is decided in
`vstack.core.paxos.proposer` alone.

Invariants
- What `decide` and `abort` return was chosen: every caller, in every process and at any time, gets the same.
- An answer counts for the acceptor whose id it carries, never for the URL that was asked: a node that took over another
  one's address cannot vote twice.
- At most MAX_LATE_ANSWERS requests outlive the round that they were sent in. They are left to arrive, because an
  acceptance does good on a slow node too; `close` ends them.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from prometheus_client import CollectorRegistry, Counter

from vstack.core import decree
from vstack.core.paxos import receipts as paxos_receipts
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import FAST_BALLOT
from vstack.core.paxos.messages import (
    Accept,
    Accepted,
    Instance,
    Learned,
    Mismatch,
    Prepare,
    Promise,
    Rejected,
    Reply,
    Retired,
)
from vstack.core.paxos.proposer import Broadcast, Chosen, Preempted, Proposer, Stalled, Step
from vstack.core.paxos.receipts import Receipt
from vstack.errors import ConflictError, UnavailableError, VStackError
from vstack.wire import consensus as wire

DECIDE_TIMEOUT_S: Final = 12.0
FAST_PATIENCE_S: Final = 1.0
"""A fast round needs more answers than a classic one: how long a hung node may hold it up."""
MAX_ROUNDS: Final = 16
BACKOFF_S: Final = 0.02
MAX_BACKOFF_S: Final = 1.0
RETRY_AFTER_S: Final = 2.0
MAX_LATE_ANSWERS: Final = 256

log = structlog.get_logger()

Uniform = Callable[[float, float], float]


class AcceptorClient(Protocol):
    """What the driver needs of `vstack.rpc.storage.StorageClient`. Every method raises VStackError, and no other."""

    async def prepare(self, node_url: str, chunk_id: str, request: wire.PrepareRequest) -> wire.AcceptorReply: ...

    async def accept(self, node_url: str, chunk_id: str, request: wire.AcceptRequest) -> wire.AcceptorReply: ...

    async def acceptor_state(self, node_url: str, chunk_id: str, epoch: int) -> wire.AcceptorState | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What one acceptor says of an instance. `state` None: it knows nothing of it, or was not `reachable`.

    Where a retirement or a later epoch closed the instance, the state is the one that did.
    """

    node_id: str
    reachable: bool
    state: AcceptorState | None = None


class Consensus:
    """One proposer process. `proposer_id` (0..65535) should differ between processes, for progress, not for safety."""

    def __init__(
        self,
        client: AcceptorClient,
        cluster_key: bytes,
        proposer_id: int,
        registry: CollectorRegistry,
        *,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._client = client
        self._cluster_key = cluster_key
        self._proposer_id = proposer_id
        self._uniform = uniform
        self._late: set[asyncio.Task[Reply | None]] = set()
        self._phases = Counter(
            "vstack_metadata_consensus_phases_total",
            "Phases of ChunkPaxos that were sent to acceptors",
            ("phase",),
            registry=registry,
        )
        self._outcomes = Counter(
            "vstack_metadata_consensus_decisions_total", "How attempts to decide ended", ("outcome",), registry=registry
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def decide(
        self, instance: Instance, value: bytes, urls: Mapping[str, str], receipts: Sequence[Receipt] = ()
    ) -> bytes:
        """Return the chosen value, which is `value` unless another one was faster.

        `urls` are the base URLs of acceptors by node id; one that has none counts as unreachable. Receipts of a fast
        quorum decide without a message; fewer of them, or none, are completed to a fast round where enough acceptors
        have a URL; otherwise classic rounds decide. UnavailableError when no quorum answers within DECIDE_TIMEOUT_S
        (the value may be chosen later all the same); ConflictError when the instance is closed.
        """
        config = instance.config
        voters = paxos_receipts.voters(receipts, instance, decree.digest(value), self._cluster_key)
        proposer = Proposer(instance, value, self._proposer_id)
        if len(voters.union(urls).intersection(config.acceptors)) < config.fast_quorum:
            return await self._conclude(proposer.start_classic(), urls)
        return await self._conclude(proposer.start_fast(voters), urls)

    async def abort(self, instance: Instance, urls: Mapping[str, str], *, video_id: str, sequence_num: int) -> bytes:
        """Give an unfinished chunk up for good: return the ABORT decree, or the value that was chosen before it.

        Errors as of `decide`.
        """
        given_up = decree.abort(video_id, sequence_num, instance.config.generation).encode()
        return await self._conclude(Proposer(instance, given_up, self._proposer_id).start_classic(), urls)

    async def inspect(self, instance: Instance, urls: Mapping[str, str]) -> tuple[Answer, ...]:
        """What every acceptor says of the instance now, in acceptor order. Changes nothing."""
        asked = (self._state(node_id, urls.get(node_id), instance) for node_id in instance.config.acceptors)
        return tuple(await asyncio.gather(*asked))

    async def close(self) -> None:
        """End the requests whose round is over."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _conclude(self, step: Step, urls: Mapping[str, str]) -> bytes:
        try:
            async with asyncio.timeout(DECIDE_TIMEOUT_S):
                chosen = await self._drive(step, urls)
        except TimeoutError as error:
            self._outcomes.labels("unavailable").inc()
            raise UnavailableError(
                "the storage nodes did not decide the chunk in time", retry_after_s=RETRY_AFTER_S
            ) from error
        except VStackError as error:
            self._outcomes.labels(error.code).inc()
            raise
        self._outcomes.labels("chosen").inc()
        return chosen

    async def _drive(self, step: Step, urls: Mapping[str, str]) -> bytes:
        proposer, effect = step
        rounds = 1
        while True:
            match effect:
                case Chosen(value=value):
                    return value
                case Broadcast(message=message):
                    self._count(message)
                    proposer, effect = await self._exchange(proposer, effect, urls)
                case Preempted() if rounds < MAX_ROUNDS:
                    await asyncio.sleep(self._uniform(0, min(MAX_BACKOFF_S, BACKOFF_S * 2**rounds)))
                    rounds += 1
                    proposer, effect = proposer.start_classic()
                case Stalled(reason=reason, closed=True):
                    raise ConflictError(reason)
                case Stalled(reason=reason):
                    raise UnavailableError(reason, retry_after_s=RETRY_AFTER_S)
                case _:
                    raise UnavailableError("other proposers keep the chunk contended", retry_after_s=RETRY_AFTER_S)

    def _count(self, message: Prepare | Accept) -> None:
        fast = message.ballot == FAST_BALLOT
        self._phases.labels("fast" if fast else "prepare" if isinstance(message, Prepare) else "accept").inc()

    async def _exchange(self, proposer: Proposer, broadcast: Broadcast, urls: Mapping[str, str]) -> Step:
        """Send one message to its acceptors, and take answers until they lead somewhere.

        A fast round that a hung node holds up is given up for a classic one.
        """
        patience_s = FAST_PATIENCE_S if broadcast.message.ballot == FAST_BALLOT else None
        waiting = {
            asyncio.create_task(self._ask(node_id, urls.get(node_id), broadcast.message)): node_id
            for node_id in broadcast.to
        }
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return proposer.start_classic()
                for task in done:
                    proposer, effect = proposer.receive(waiting.pop(task), task.result())
                    if effect is not None:
                        return proposer, effect
            raise AssertionError("every acceptor has answered, or counts as lost, and nothing follows")
        except asyncio.CancelledError:
            for task in waiting:
                task.cancel()
            raise
        finally:
            self._leave(waiting)

    def _leave(self, tasks: Mapping[asyncio.Task[Reply | None], str]) -> None:
        for task in tasks:
            if len(self._late) >= MAX_LATE_ANSWERS:
                self._late.pop().cancel()
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _ask(self, node_id: str, url: str | None, message: Prepare | Accept) -> Reply | None:
        if url is None:
            return None
        instance, config = message.instance, wire.ConfigBody.of(message.instance.config)
        try:
            if isinstance(message, Prepare):
                prepare = wire.PrepareRequest(epoch=instance.epoch, config=config, ballot=message.ballot)
                answer = await self._client.prepare(url, instance.chunk_id, prepare)
            else:
                accept = wire.AcceptRequest(
                    epoch=instance.epoch, config=config, ballot=message.ballot, value=message.value.decode()
                )
                answer = await self._client.accept(url, instance.chunk_id, accept)
        except VStackError as error:
            log.info("acceptor_lost", node_id=node_id, chunk_id=instance.chunk_id, error=str(error))
            return None
        reply = _reply(message, answer) if answer.node_id == node_id else None
        if reply is None or isinstance(reply, Mismatch):
            log.warning("acceptor_unusable", node_id=node_id, chunk_id=instance.chunk_id, answer=answer)
        return reply

    async def _state(self, node_id: str, url: str | None, instance: Instance) -> Answer:
        if url is None:
            return Answer(node_id, reachable=False)
        try:
            state = await self._client.acceptor_state(url, instance.chunk_id, instance.epoch)
            if state is None or state.node_id == node_id:
                return Answer(node_id, reachable=True, state=None if state is None else state.to_core())
        except VStackError as error:
            log.info("acceptor_lost", node_id=node_id, chunk_id=instance.chunk_id, error=str(error))
        return Answer(node_id, reachable=False)


def _reply(message: Prepare | Accept, answer: wire.AcceptorReply) -> Reply | None:
    """The core reply that answers `message`; None where the answer is none."""
    value = None if answer.accepted_value is None else answer.accepted_value.encode()
    whole = (value is not None) == (answer.accepted_ballot >= 0)
    reply: Reply | None = None
    match answer.outcome, message:
        case "promised", Prepare(ballot=ballot) if whole:
            reply = Promise(ballot, answer.accepted_ballot, value)
        case "accepted", Accept(ballot=ballot):
            reply = Accepted(ballot)
        case "rejected", _:
            reply = Rejected(answer.promised_ballot, answer.accepted_ballot, value)
        case "learned", _ if value is not None:
            reply = Learned(value)
        case "retired", _:
            reply = Retired()
        case "mismatch", _:
            reply = Mismatch(answer.reason)
    return reply
