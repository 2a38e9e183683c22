"""The acceptor: what one storage node remembers of one instance, and how each message changes it.

`step` is pure. The caller makes the new state durable *before* the reply leaves; a reply for an unchanged state may
leave at once.

Invariants
- `promised` only rises, also across restarts; `accepted_ballot <= promised`.
- A prepare is granted only above every ballot promised so far, strictly. So no two proposers ever hold a majority of
  promises for one ballot, even if they share a proposer id or one restarts and counts its rounds from the start.
- At the fast ballot only the first value is taken, and none after a promise.
- A learned value never changes; a retired instance answers nothing but `Retired`.
"""

from dataclasses import dataclass, replace

from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT
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


@dataclass(frozen=True, slots=True)
class AcceptorState:
    """The durable state of one acceptor for one instance: one record in a superblock."""

    instance: Instance
    promised: int = NO_BALLOT
    accepted_ballot: int = NO_BALLOT
    accepted_value: bytes | None = None
    learned: bool = False
    retired: bool = False


def step(node_id: str, state: AcceptorState | None, message: Message) -> tuple[AcceptorState | None, Reply]:
    """The state after `message` and the reply to it. A state that is the same object needs no write."""
    instance = message.instance
    if state is not None and state.retired:
        return state, Retired()
    if node_id not in instance.config.acceptors:
        return state, Mismatch(f"{node_id} is no acceptor of {instance.chunk_id} in epoch {instance.epoch}")
    if state is not None and state.instance != instance:
        return state, Mismatch(f"{instance.chunk_id} was begun with {state.instance.config}, not {instance.config}")
    match message:
        case Retire():
            return AcceptorState(instance, retired=True), Retired()
        case Learn(value=value):
            return _learn(state, instance, value)
    if state is not None and state.learned:
        assert state.accepted_value is not None
        return state, Learned(state.accepted_value)
    current = state or AcceptorState(instance)
    match message:
        case Prepare(ballot=ballot):
            after, reply = _prepare(current, ballot)
        case Accept(ballot=ballot, value=value):
            after, reply = _accept(current, ballot, value)
    return (state if after is current else after), reply


def _prepare(state: AcceptorState, ballot: int) -> tuple[AcceptorState, Reply]:
    if ballot <= FAST_BALLOT or ballot <= state.promised:
        return state, _rejection(state)
    return replace(state, promised=ballot), Promise(ballot, state.accepted_ballot, state.accepted_value)


def _accept(state: AcceptorState, ballot: int, value: bytes) -> tuple[AcceptorState, Reply]:
    if ballot < FAST_BALLOT or ballot < state.promised:
        return state, _rejection(state)
    if ballot == state.accepted_ballot:
        return (state, Accepted(ballot)) if value == state.accepted_value else (state, _rejection(state))
    return replace(state, promised=ballot, accepted_ballot=ballot, accepted_value=value), Accepted(ballot)


def _learn(state: AcceptorState | None, instance: Instance, value: bytes) -> tuple[AcceptorState, Reply]:
    if state is None:
        return AcceptorState(instance, accepted_value=value, learned=True), Learned(value)
    if not state.learned:
        return replace(state, accepted_value=value, learned=True), Learned(value)
    if state.accepted_value != value:
        return state, Mismatch(f"{instance.chunk_id}: another value was learned before")
    return state, Learned(value)


def _rejection(state: AcceptorState) -> Rejected:
    return Rejected(state.promised, state.accepted_ballot, state.accepted_value)
