"""What the acceptors' states of one chunk say about it: the pure half of a rebuild.

The highest epoch that is proven chosen counts. An epoch above it that somebody voted in may be chosen too, without
proof among the nodes that answered: it is to be finished by a classic round, which finds what was chosen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.recovery import chosen_value


@dataclass(frozen=True, slots=True)
class StateRow:
    """The state of one acceptor for one instance, as staged."""

    node_id: str
    chunk_id: str
    epoch: int
    generation: int
    acceptors: list[str]
    promised: int
    accepted_ballot: int
    accepted_value: bytes | None
    learned: bool
    retired: bool


@dataclass(frozen=True, slots=True)
class Vote:
    """A state in the core's terms, with who holds it."""

    node_id: str
    state: AcceptorState


@dataclass(frozen=True, slots=True)
class Decision:
    """A value proven chosen, or one to finish its instance with."""

    instance: Instance
    value: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a chunk. `open` instances lie above the epoch of `chosen`, the highest first."""

    chunk_id: str
    retired: bool = False
    chosen: Decision | None = None
    open: tuple[Decision, ...] = ()


def find(chunk_id: str, votes: Sequence[Vote]) -> Finding:
    """Read all states of one chunk, of every epoch and node."""
    if any(vote.state.retired for vote in votes):
        return Finding(chunk_id, retired=True)
    unproven: list[Decision] = []
    for instance in sorted({vote.state.instance for vote in votes}, key=lambda instance: -instance.epoch):
        states = {vote.node_id: vote.state for vote in votes if vote.state.instance == instance}
        value = chosen_value(states, instance.config)
        if value is not None:
            above = tuple(decision for decision in unproven if decision.instance.epoch > instance.epoch)
            return Finding(chunk_id, chosen=Decision(instance, value), open=above)
        reported = _highest(states.values())
        if reported is not None:
            unproven.append(Decision(instance, reported))
    return Finding(chunk_id, open=tuple(unproven))


def _highest(states: Iterable[AcceptorState]) -> bytes | None:
    """A value accepted at the highest ballot, None where nothing was accepted."""
    voted = [state for state in states if state.accepted_value is not None]
    return max(voted, key=lambda state: state.accepted_ballot).accepted_value if voted else None
