"""The acceptor of a storage node: takes the messages of ChunkPaxos one at a time per chunk, durably.

Owns the order of messages; `vstack.core.paxos.acceptor` decides what each changes, the engine makes it durable.

Invariants: a message is stepped on the state that the one before it left on the disk; a state is durable before its
reply leaves; the locks of idle chunks do not stay in memory.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from vstack.core.paxos.acceptor import AcceptorState, governing, step
from vstack.core.paxos.config import FAST_BALLOT
from vstack.core.paxos.messages import Accept, Message, Promise, Reply
from vstack.storage.contract import Engine
from vstack.storage.locks import NamedLocks


@dataclass(frozen=True, slots=True)
class Taken:
    """What a message led to. `unsaved` is the state to make durable before `reply` may leave, None if unchanged."""

    message: Message
    state: AcceptorState | None
    reply: Reply
    unsaved: AcceptorState | None

    @property
    def fast_vote(self) -> bytes | None:
        """The value that this acceptor accepted at the fast ballot of the instance, as far as its state still tells."""
        if self.state is None or self.state.instance != self.message.instance:
            return None
        return self.state.accepted_value if self.state.accepted_ballot == FAST_BALLOT else None


class Acceptors:
    """All instances that this node takes part in. `count` is told the kind of every message and the outcome."""

    def __init__(self, engine: Engine, count: Callable[[str, str], None]) -> None:
        self._engine = engine
        self._count = count
        self._node_id = engine.identity.node_id
        self._locks = NamedLocks()

    async def handle(self, message: Message) -> Taken:
        """Take one message; what it changed is durable on return."""
        async with self._locks.hold([message.instance.chunk_id]):
            taken = await self._take(message)
            if taken.unsaved is not None:
                await self._engine.journal([taken.unsaved])
        return taken

    async def handle_all(self, messages: Sequence[Message]) -> list[Reply]:
        """Take a batch in order, durably, under one flush."""
        replies: list[Reply] = []
        changed: defaultdict[str, dict[int, AcceptorState]] = defaultdict(dict)
        async with self._locks.hold(message.instance.chunk_id for message in messages):
            for message in messages:
                newer = changed[message.instance.chunk_id]
                taken = await self._take(message, newer)
                replies.append(taken.reply)
                if taken.unsaved is not None:
                    newer.pop(taken.unsaved.instance.epoch, None)  # journalled in the order of the last changes
                    newer[taken.unsaved.instance.epoch] = taken.unsaved
            if states := [state for epochs in changed.values() for state in epochs.values()]:
                await self._engine.journal(states)
        return replies

    @contextlib.asynccontextmanager
    async def proposed(self, message: Accept) -> AsyncIterator[Taken]:
        """Take a proposal that rides on data: inside the block the caller makes `unsaved` durable with the data."""
        async with self._locks.hold([message.instance.chunk_id]):
            yield await self._take(message)

    async def _take(self, message: Message, newer: dict[int, AcceptorState] | None = None) -> Taken:
        """Step on the journalled state, or on what the `newer` states of the chunk, by epoch, make of it."""
        instance = message.instance
        before = await self._engine.acceptor(instance.chunk_id, instance.epoch)
        if newer:
            kept = {before.instance.epoch: before} if before is not None else {}
            before = governing({**kept, **newer}.values(), instance.epoch)
        after, reply = step(self._node_id, before, message)
        self._count(type(message).__name__.lower(), outcome(reply))
        return Taken(message, after, reply, unsaved=None if after is before else after)


def outcome(reply: Reply) -> str:
    """The word for a reply, on the wire and in metrics."""
    return "promised" if isinstance(reply, Promise) else type(reply).__name__.lower()
