"""Handlers for the acceptor role: messages of ChunkPaxos, and what a rebuild reads."""

import structlog
from aiohttp import web

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
    Retire,
    Retired,
)
from vstack.errors import InvalidRequestError, NotFoundError
from vstack.ids import Identifier
from vstack.storage.acceptors import Taken, outcome
from vstack.storage.node import NODE, Node
from vstack.wire import consensus
from vstack.wire.storage import AcceptorsQuery

log = structlog.get_logger()


async def prepare(
    request: web.Request, *, chunk_id: Identifier, body: consensus.PrepareRequest
) -> consensus.AcceptorReply:
    """Phase 1 of a classic round: a durable promise."""
    instance = Instance(chunk_id, body.epoch, body.config.to_core())
    return await _take(request.app[NODE], Prepare(instance, body.ballot))


async def accept(
    request: web.Request, *, chunk_id: Identifier, body: consensus.AcceptRequest
) -> consensus.AcceptorReply:
    """Phase 2, or at ballot 0 the fast round: a durable acceptance."""
    instance = Instance(chunk_id, body.epoch, body.config.to_core())
    return await _take(request.app[NODE], Accept(instance, body.ballot, consensus.value_bytes(body.value)))


async def learn(request: web.Request, *, body: consensus.LearnRequest) -> consensus.LearnReply:
    """Remember chosen values, and retire deleted chunks, under one flush."""
    node = request.app[NODE]
    messages = [_learning(item) for item in body.items]
    replies = await node.acceptors.handle_all(messages)
    for message, reply in zip(messages, replies, strict=True):
        if isinstance(reply, Mismatch):
            log.warning("learn_refused", chunk_id=message.instance.chunk_id, reason=reply.reason)
    learned = sum(isinstance(reply, Learned | Retired) for reply in replies)
    return consensus.LearnReply(node_id=node.engine.identity.node_id, learned=learned)


async def acceptor_state(
    request: web.Request, *, chunk_id: Identifier, query: consensus.AcceptorQuery
) -> consensus.AcceptorState:
    """The durable state of one instance."""
    engine = request.app[NODE].engine
    state = await engine.acceptor(chunk_id, query.epoch)
    if state is None:
        raise NotFoundError(f"nothing is known of {chunk_id} in epoch {query.epoch}")
    return consensus.AcceptorState.of(engine.identity.node_id, state)


async def list_acceptors(request: web.Request, *, query: AcceptorsQuery) -> consensus.AcceptorPage:
    """A page of all acceptor states, for a rebuild."""
    engine = request.app[NODE].engine
    page, after = await engine.acceptors(query.after, query.limit)
    states = tuple(consensus.AcceptorState.of(engine.identity.node_id, state) for state in page)
    return consensus.AcceptorPage(states=states, next=after)


def _learning(item: consensus.LearnItem) -> Message:
    instance = Instance(item.chunk_id, item.epoch, item.config.to_core())
    return Retire(instance) if item.value is None else Learn(instance, consensus.value_bytes(item.value))


async def _take(node: Node, message: Prepare | Accept) -> consensus.AcceptorReply:
    if message.ballot < 0:
        raise InvalidRequestError("a ballot is 0 or more")
    taken = await node.acceptors.handle(message)
    return await _encode(node, message, taken)


async def _encode(node: Node, message: Prepare | Accept, taken: Taken) -> consensus.AcceptorReply:
    node_id = node.engine.identity.node_id
    match taken.reply:
        case Promise(ballot=promised, accepted_ballot=accepted, accepted_value=value):
            pass
        case Rejected(promised=promised, accepted_ballot=accepted, accepted_value=value):
            pass
        case Accepted(ballot=accepted):
            promised, value = accepted, message.value if isinstance(message, Accept) else None
        case Learned(value=value):
            assert taken.state is not None
            promised, accepted = taken.state.promised, taken.state.accepted_ballot
        case Mismatch(reason=reason):
            return consensus.AcceptorReply(node_id=node_id, outcome="mismatch", reason=reason)
        case Retired():
            return consensus.AcceptorReply(node_id=node_id, outcome="retired")
    return consensus.AcceptorReply(
        node_id=node_id,
        outcome=outcome(taken.reply),
        promised_ballot=promised,
        accepted_ballot=accepted,
        accepted_value=_text(value),
        receipt=await _receipt(node, message, taken),
    )


async def _receipt(node: Node, message: Prepare | Accept, taken: Taken) -> str | None:
    """Proof of a vote at the fast ballot."""
    if not isinstance(message, Accept) or taken.fast_vote != message.value:
        return None
    stored = await node.engine.head(message.instance.chunk_id)
    return node.notary.receipt(message.instance, vote=message.value, stored=stored)


def _text(value: bytes | None) -> str | None:
    return value.decode() if value is not None else None
