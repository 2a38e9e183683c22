"""The acceptor: what one storage node remembers of one instance, and how each message changes it.

`step` is pure. The caller serialises the messages of one instance, hands in the state that `governing` picks, and makes
the new state durable *before* the reply leaves; a reply for an unchanged state may leave at once.

Invariants
- `promised` only rises, also across restarts; `accepted_ballot <= promised`.
- A prepare is granted only above every ballot promised so far, strictly. So no two proposers ever hold a majority of
  promises for one ballot, even if they share a proposer id or one restarts and counts its rounds from the start.
- At the fast ballot only the first value is taken, and none after a promise.
- A learned value never changes. It closes all earlier epochs of its chunk; a retirement closes every epoch. A state
  that is closed may be dropped, because what closed it goes on answering in its place: dropping is not forgetting.
"""

from collections.abc import Iterable
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
    """The durable state of one acceptor for one instance: one record in a superblock.

    `accepted_value` was accepted at `accepted_ballot`. Where `learned`, it is the chosen value, and the ballot is
    `NO_BALLOT` if this acceptor had not accepted it last.
    """

    instance: Instance
    promised: int = NO_BALLOT
    accepted_ballot: int = NO_BALLOT
    accepted_value: bytes | None = None
    learned: bool = False
    retired: bool = False


def closes(state: AcceptorState, epoch: int) -> bool:
    """Whether `state` ends this epoch of its chunk for good, so that what was kept of the epoch may be dropped."""
    return state.retired or (state.learned and epoch < state.instance.epoch)


def governing(states: Iterable[AcceptorState], epoch: int) -> AcceptorState | None:
    """The state that answers for an epoch, among all that an acceptor keeps of one chunk.

    What closes the epoch comes first (a retirement, or the newest learned value of a later epoch), then the epoch's own
    state. Looking up only the latter would let a late message reopen an epoch whose state was dropped.
    """
    kept = sorted(states, key=lambda state: (state.retired, state.instance.epoch), reverse=True)
    closing = (state for state in kept if closes(state, epoch))
    own = (state for state in kept if state.instance.epoch == epoch)
    return next(closing, None) or next(own, None)


def step(node_id: str, state: AcceptorState | None, message: Message) -> tuple[AcceptorState | None, Reply]:
    """The state after `message` and the reply to it. A state that is the same object needs no write.

    `state` is the `governing` one of the message's epoch. A new state may belong to an earlier epoch than that: only
    where a chunk is retired through an epoch that is closed already.
    """
    instance = message.instance
    if state is not None and state.retired:
        return state, Retired()
    if node_id not in instance.config.acceptors:
        return state, Mismatch(f"{node_id} is no acceptor of {instance.chunk_id} in epoch {instance.epoch}")
    closed = state is not None and closes(state, instance.epoch)
    if state is not None and not closed and state.instance != instance:
        return state, Mismatch(f"{instance.chunk_id} was begun with {state.instance.config}, not {instance.config}")
    if isinstance(message, Retire):
        return AcceptorState(instance, retired=True), Retired()
    if closed:
        return state, Retired()
    current = state or AcceptorState(instance)
    match message:
        case Learn(value=value):
            after, reply = _learn(current, value)
        case _ if current.learned and current.accepted_value is not None:
            after, reply = current, Learned(current.accepted_value)
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


def _learn(state: AcceptorState, value: bytes) -> tuple[AcceptorState, Reply]:
    if not state.learned:
        ballot = state.accepted_ballot if state.accepted_value == value else NO_BALLOT
        return replace(state, accepted_ballot=ballot, accepted_value=value, learned=True), Learned(value)
    if state.accepted_value != value:
        return state, Mismatch(f"{state.instance.chunk_id}: another value was learned before")
    return state, Learned(value)


def _rejection(state: AcceptorState) -> Rejected:
    return Rejected(state.promised, state.accepted_ballot, state.accepted_value)
