"""The proposer: drives one instance to a chosen value. A pure state machine that never waits.

Use: send what `start_fast` or `start_classic` returns to every acceptor of the instance, feed each answer (or None for
an acceptor that cannot be reached) to `receive`, and do what it returns until it says `Chosen` or `Stalled`. On
`Preempted`, wait a little and call `start_classic` again: the round has been raised.

Choosing after phase 1 (Lamport, "Fast Paxos", 2006, section 2.2): among the promises of a quorum, the value at the
highest classic ballot must be taken. If the highest ballot is the fast one, a value that at least F + |R| - N of the
|R| promises report may have been chosen and must be taken; there is never more than one such value. Otherwise the
proposer is free.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto

from vstack.core.paxos.config import FAST_BALLOT, NO_BALLOT, Config, ballot, round_of
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
    """Send `message` to every acceptor."""

    message: Prepare | Accept


@dataclass(frozen=True, slots=True)
class Chosen:
    """The value is decided, whether it is ours or not."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Preempted:
    """Another proposer was faster, or the fast round collided: back off, then start a classic round."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """No quorum can be reached now. `retired` where an acceptor said that the chunk was deleted for good."""

    reason: str
    retired: bool = False


Effect = Broadcast | Chosen | Preempted | Stalled


class _Phase(Enum):
    IDLE = auto()
    FAST = auto()
    PREPARE = auto()
    ACCEPT = auto()
    DONE = auto()


def value_to_propose(config: Config, promises: dict[str, Promise], own: bytes) -> bytes:
    """The value that a proposer must (or may) propose after these promises of a classic quorum."""
    highest = max(promise.accepted_ballot for promise in promises.values())
    if highest == NO_BALLOT:
        return own
    reported = Counter(
        promise.accepted_value
        for promise in promises.values()
        if promise.accepted_ballot == highest and promise.accepted_value is not None
    )
    value, votes = reported.most_common(1)[0]
    if highest > FAST_BALLOT or votes >= config.fast_quorum + len(promises) - len(config.acceptors):
        return value
    return own


class Proposer:
    """One proposer for one instance. `proposer_id` (0..65535) keeps concurrent proposers from duelling."""

    def __init__(self, instance: Instance, value: bytes, proposer_id: int) -> None:
        self._instance = instance
        self._config = instance.config
        self._own = value
        self._proposer_id = proposer_id
        self._round = 0
        self._ballot = NO_BALLOT
        self._value = value
        self._phase = _Phase.IDLE
        self._granted: dict[str, Promise | Accepted] = {}
        self._refused: set[str] = set()
        self._lost: set[str] = set()

    def start_fast(self) -> Broadcast:
        """One round trip at the open ballot; worth trying where nobody is known to have proposed."""
        return self._begin(_Phase.FAST, FAST_BALLOT, Accept(self._instance, FAST_BALLOT, self._own))

    def start_classic(self) -> Broadcast:
        """Phase 1 in a round above all that were seen."""
        self._round += 1
        number = ballot(self._round, self._proposer_id)
        return self._begin(_Phase.PREPARE, number, Prepare(self._instance, number))

    def receive(self, acceptor: str, reply: Reply | None) -> Effect | None:
        """What an acceptor's answer to the current message leads to; None while waiting for more.

        The caller feeds only answers to the message it sent last; answers to earlier ones are ignored by their ballot.
        """
        if self._phase in (_Phase.IDLE, _Phase.DONE) or acceptor not in self._config.acceptors:
            return None
        match reply:
            case Learned(value=value):
                return self._finish(Chosen(value))
            case Retired():
                return self._finish(Stalled("the chunk was deleted", retired=True))
            case Promise(ballot=number) if self._phase is _Phase.PREPARE and number == self._ballot:
                self._granted[acceptor] = reply
            case Accepted(ballot=number) if self._phase is not _Phase.PREPARE and number == self._ballot:
                self._granted[acceptor] = reply
            case Rejected(promised=promised):
                self._round = max(self._round, round_of(promised))
                self._refused.add(acceptor)
            case Mismatch() | None:
                self._lost.add(acceptor)
            case _:
                return None
        return self._progress()

    def _begin(self, phase: _Phase, number: int, message: Prepare | Accept) -> Broadcast:
        self._phase, self._ballot = phase, number
        self._granted, self._refused, self._lost = {}, set(), set()
        return Broadcast(message)

    def _progress(self) -> Effect | None:
        needed = self._config.fast_quorum if self._phase is _Phase.FAST else self._config.classic_quorum
        if len(self._granted) >= needed:
            if self._phase is not _Phase.PREPARE:
                return self._finish(Chosen(self._own if self._phase is _Phase.FAST else self._value))
            promises = {node: reply for node, reply in self._granted.items() if isinstance(reply, Promise)}
            self._value = value_to_propose(self._config, promises, self._own)
            return self._begin(_Phase.ACCEPT, self._ballot, Accept(self._instance, self._ballot, self._value))
        total = len(self._config.acceptors)
        failed = self._refused | self._lost
        if len(failed - set(self._granted)) <= total - needed:
            return None
        if total - len(self._lost) < self._config.classic_quorum:
            return self._finish(Stalled(f"{len(self._lost)} of {total} acceptors cannot be reached"))
        return self._finish(Preempted())

    def _finish(self, effect: Effect) -> Effect:
        self._phase = _Phase.IDLE if isinstance(effect, Preempted) else _Phase.DONE
        return effect
