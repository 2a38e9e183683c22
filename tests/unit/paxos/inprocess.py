"""Acceptors in this process behind the two clients that the drivers use, with faults to switch on."""

import asyncio
from dataclasses import dataclass, field

from vstack.core.paxos.acceptor import AcceptorState, closes, governing, step
from vstack.core.paxos.messages import (
    Accept,
    Accepted,
    Instance,
    Learn,
    Learned,
    Message,
    Mismatch,
    Prepare,
    Promise,
    Rejected,
    Reply,
    Retire,
    Retired,
)
from vstack.errors import RemoteError
from vstack.wire import consensus as wire


@dataclass
class Acceptors:
    """Storage nodes by URL; `urls` is what a driver is told. All but the transport is the product's code.

    A URL in `down` fails at once, one in `hung` never answers; `moved` makes another node answer at a URL. `calls`
    records what was asked; `order` may delay an answer.
    """

    node_ids: tuple[str, ...]
    states: dict[tuple[str, str], dict[int, AcceptorState]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @property
    def urls(self) -> dict[str, str]:
        return {node_id: f"http://{node_id}" for node_id in self.node_ids}

    def take(self, node_id: str, message: Message) -> Reply:
        """Step a node's durable state, past the transport."""
        kept = self.states.setdefault((node_id, message.instance.chunk_id), {})
        before = governing(kept.values(), message.instance.epoch)
        after, reply = step(node_id, before, message)
        if after is not None and after is not before:
            for epoch in [epoch for epoch in kept if closes(after, epoch)]:
                del kept[epoch]
            kept[after.instance.epoch] = after
        return reply

    async def prepare(self, node_url: str, chunk_id: str, request: wire.PrepareRequest) -> wire.AcceptorReply:
        instance = Instance(chunk_id, request.epoch, request.config.to_core())
        node_id = await self._reach("prepare", node_url)
        return _encoded(node_id, self.take(node_id, Prepare(instance, request.ballot)))

    async def accept(self, node_url: str, chunk_id: str, request: wire.AcceptRequest) -> wire.AcceptorReply:
        instance = Instance(chunk_id, request.epoch, request.config.to_core())
        node_id = await self._reach("accept", node_url)
        return _encoded(node_id, self.take(node_id, Accept(instance, request.ballot, request.value.encode())))

    async def acceptor_state(self, node_url: str, chunk_id: str, epoch: int) -> wire.AcceptorState | None:
        node_id = await self._reach("state", node_url)
        state = governing(self.states.get((node_id, chunk_id), {}).values(), epoch)
        return None if state is None else wire.AcceptorState.of(node_id, state)

    async def learn(self, node_url: str, request: wire.LearnRequest) -> wire.LearnReply:
        node_id = await self._reach("learn", node_url)
        replies = [self.take(node_id, _learning(item)) for item in request.items]
        return wire.LearnReply(node_id=node_id, learned=sum(isinstance(reply, Learned | Retired) for reply in replies))

    async def _reach(self, call: str, node_url: str) -> str:
        self.calls.append(call)
        if node_url in self.hung:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if node_url in self.down:
            raise RemoteError(f"{node_url} is down")
        return self.moved.get(node_url, node_url.removeprefix("http://"))


def _learning(item: wire.LearnItem) -> Message:
    instance = Instance(item.chunk_id, item.epoch, item.config.to_core())
    return Retire(instance) if item.value is None else Learn(instance, item.value.encode())


def _encoded(node_id: str, reply: Reply) -> wire.AcceptorReply:
    match reply:
        case Promise(ballot=promised, accepted_ballot=accepted, accepted_value=value):
            return _answer(node_id, "promised", promised, accepted, value)
        case Rejected(promised=promised, accepted_ballot=accepted, accepted_value=value):
            return _answer(node_id, "rejected", promised, accepted, value)
        case Accepted(ballot=ballot):
            return _answer(node_id, "accepted", ballot, ballot, None)
        case Learned(value=value):
            return _answer(node_id, "learned", -1, -1, value)
        case Retired():
            return wire.AcceptorReply(node_id=node_id, outcome="retired")
        case Mismatch(reason=reason):
            return wire.AcceptorReply(node_id=node_id, outcome="mismatch", reason=reason)


def _answer(node_id: str, outcome: str, promised: int, accepted: int, value: bytes | None) -> wire.AcceptorReply:
    return wire.AcceptorReply(
        node_id=node_id,
        outcome=outcome,
        promised_ballot=promised,
        accepted_ballot=accepted,
        accepted_value=None if value is None else value.decode(),
    )
