"""The proposer: drives one instance to a chosen value. A pure state machine that never waits.

Use: every method returns the proposer that follows and what to do next. Send a `Broadcast` to the acceptors that it
names and feed each answer (or None for an acceptor that cannot be reached) to `receive`, until it says `Chosen` or
`Stalled`. On `Preempted`, wait a little and call `start_classic` again: the round has been raised.

Choosing after phase 1 (Lamport, "Fast Paxos", 2006, section 2.2): among the promises of a quorum, the value at the
highest classic ballot must be taken. If the highest ballot is the fast one, a value that at least F + |R| - N of the
|R| promises report may have been chosen and must be taken; there is never more than one such value. Otherwise the
proposer is free.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from vstack.core.paxos.config import FAST_BALLOT, MAX_ROUND, NO_BALLOT, Config, ballot, round_of
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


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send `message` to these acceptors, all at once."""

    message: Prepare | Accept
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The value is decided, whether it is ours or not."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Preempted:
    """Another proposer was faster, or the fast round collided: back off, then start a classic round."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """Nothing can be decided now; for good where `closed` (the chunk was deleted, or a later epoch is decided)."""

    reason: str
    closed: bool = False


Effect = Broadcast | Chosen | Preempted | Stalled
_Grants = frozenset[tuple[str, Promise | Accepted]]


class Phase(Enum):
    """`IDLE` is before a round and between two; nothing leads out of `DONE`."""

    IDLE = auto()
    FAST = auto()
    PREPARE = auto()
    ACCEPT = auto()
    DONE = auto()


def value_to_propose(config: Config, promises: Collection[Promise], own: bytes) -> bytes:
    """The value that a proposer must (or may) propose after these promises of a classic quorum."""
    highest = max(promise.accepted_ballot for promise in promises)
    if highest == NO_BALLOT:
        return own
    reported = Counter(promise.accepted_value for promise in promises if promise.accepted_ballot == highest)
    value, votes = reported.most_common(1)[0]
    assert value is not None
    if highest > FAST_BALLOT or votes >= config.fast_quorum + len(promises) - len(config.acceptors):
        return value
    return own


@dataclass(frozen=True, slots=True)
class Proposer:
    """One proposer for one instance that would like `own` to be chosen.

    `proposer_id` (0..65535) keeps concurrent proposers from duelling. `value` is what the current round proposes;
    `granted` are the answers that count towards its quorum, `refused` and `lost` the acceptors that gave none.
    """

    instance: Instance
    own: bytes
    proposer_id: int
    phase: Phase = Phase.IDLE
    round: int = 0
    ballot: int = NO_BALLOT
    value: bytes | None = None
    granted: _Grants = frozenset()
    refused: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()

    def start_fast(self, accepted: Iterable[str] = ()) -> "Step":
        """The open ballot: one round trip, none where the acceptors that hold `own` at ballot 0 already suffice.

        `accepted` are those that proved it by a receipt. Worth trying where nobody else is known to have proposed.
        """
        known = frozenset((node, Accepted(FAST_BALLOT)) for node in accepted if node in self.acceptors)
        begun = _begin(self, Phase.FAST, FAST_BALLOT, self.own, known)
        return _won(begun) if len(known) >= self.instance.config.fast_quorum else (begun, _broadcast(begun))

    def start_classic(self) -> "Step":
        """Phase 1 in a round above all that were seen."""
        if self.round + 1 >= MAX_ROUND:
            return replace(self, phase=Phase.DONE), Stalled("the ballots of this chunk are exhausted")
        raised = replace(self, round=self.round + 1)
        begun = _begin(raised, Phase.PREPARE, ballot(raised.round, raised.proposer_id))
        return begun, _broadcast(begun)

    def receive(self, acceptor: str, reply: Reply | None) -> "Step":
        """What an acceptor's answer to the current message leads to; no effect while waiting for more.

        The caller feeds only answers to the message it sent last. Late ones are harmless all the same: what is granted
        names its ballot, and a late refusal can only make a round end sooner.
        """
        if self.phase in (Phase.IDLE, Phase.DONE) or acceptor not in self.acceptors:
            return self, None
        match reply:
            case Learned(value=value):
                return replace(self, phase=Phase.DONE), Chosen(value)
            case Retired():
                reason = "the chunk was deleted, or its placement was decided anew since"
                return replace(self, phase=Phase.DONE), Stalled(reason, closed=True)
            case Promise() if self.phase is Phase.PREPARE:
                return _grant(self, acceptor, reply)
            case Accepted() if self.phase is not Phase.PREPARE:
                return _grant(self, acceptor, reply)
            case Rejected(promised=promised):
                raised = max(self.round, round_of(promised))
                return _settle(replace(self, round=raised, refused=self.refused | {acceptor}))
            case Mismatch() | None:
                return _settle(replace(self, lost=self.lost | {acceptor}))
            case _:
                return self, None

    @property
    def acceptors(self) -> tuple[str, ...]:
        return self.instance.config.acceptors

    @property
    def granted_by(self) -> frozenset[str]:
        """The acceptors that count towards the quorum of the current phase."""
        return frozenset(acceptor for acceptor, _ in self.granted)


Step = tuple[Proposer, Effect | None]


def _begin(
    proposer: Proposer, phase: Phase, number: int, value: bytes | None = None, granted: _Grants = frozenset()
) -> Proposer:
    nobody: frozenset[str] = frozenset()
    return replace(proposer, phase=phase, ballot=number, value=value, granted=granted, refused=nobody, lost=nobody)


def _broadcast(proposer: Proposer) -> Broadcast:
    """The message of the current phase, to all that have not answered it."""
    to = tuple(acceptor for acceptor in proposer.acceptors if acceptor not in proposer.granted_by)
    if proposer.value is None:
        return Broadcast(Prepare(proposer.instance, proposer.ballot), to)
    return Broadcast(Accept(proposer.instance, proposer.ballot, proposer.value), to)


def _grant(proposer: Proposer, acceptor: str, reply: Promise | Accepted) -> Step:
    if reply.ballot != proposer.ballot or acceptor in proposer.granted_by:
        return proposer, None
    return _settle(replace(proposer, granted=proposer.granted | {(acceptor, reply)}))


def _settle(proposer: Proposer) -> Step:
    """Go on where a quorum granted the current phase, give up where none can any more, else wait."""
    config = proposer.instance.config
    needed = config.fast_quorum if proposer.phase is Phase.FAST else config.classic_quorum
    if len(proposer.granted) >= needed:
        return _won(proposer)
    total = len(config.acceptors)
    if len((proposer.refused | proposer.lost) - proposer.granted_by) <= total - needed:
        return proposer, None
    if total - len(proposer.lost) < config.classic_quorum:
        reason = f"{len(proposer.lost)} of {total} acceptors cannot be reached"
        return replace(proposer, phase=Phase.DONE), Stalled(reason)
    return replace(proposer, phase=Phase.IDLE), Preempted()


def _won(proposer: Proposer) -> Step:
    """A quorum granted the current phase."""
    if proposer.value is not None:
        return replace(proposer, phase=Phase.DONE), Chosen(proposer.value)
    promises = [reply for _, reply in proposer.granted if isinstance(reply, Promise)]
    value = value_to_propose(proposer.instance.config, promises, proposer.own)
    begun = _begin(proposer, Phase.ACCEPT, proposer.ballot, value)
    return begun, _broadcast(begun)
