"""Who decides: acceptor sets, quorums and ballots.

Invariants
- The acceptors of an instance depend on the chunk id and an immutable generation of the node set only, never on the
  value proposed: two proposals with disjoint placements still meet at the same acceptors.
- Any two classic quorums intersect, and any classic quorum meets any two fast quorums in a common acceptor
  (Lamport, "Fast Paxos", 2006): with N = 5, F = 4 and N = 3, F = 3.
- A ballot belongs to one proposer, except `FAST_BALLOT`, which is open to anyone and carries no majority rule.
"""

from dataclasses import dataclass
from typing import Final

NO_BALLOT: Final = -1
"""Smaller than every ballot: nothing was promised or accepted yet."""

FAST_BALLOT: Final = 0
"""The fast round. An acceptor takes only the first value that it sees at this ballot."""

PROPOSER_BITS: Final = 16
MAX_ROUND: Final = 2**36
"""Ballots stay below 2^52, so that every JSON reader keeps them exact."""


def ballot(round_number: int, proposer_id: int) -> int:
    """The classic ballot of a proposer: (round << 16) | proposer id, with rounds from 1."""
    if not 1 <= round_number < MAX_ROUND:
        raise ValueError(f"round {round_number} out of range")
    if not 0 <= proposer_id < 1 << PROPOSER_BITS:
        raise ValueError(f"proposer id {proposer_id} out of range")
    return (round_number << PROPOSER_BITS) | proposer_id


def round_of(ballot_number: int) -> int:
    """The round of a ballot; 0 for the fast ballot and below."""
    return max(0, ballot_number) >> PROPOSER_BITS


@dataclass(frozen=True, slots=True)
class Config:
    """The acceptor set of one instance, carried in every message and stored with every acceptance.

    `generation` numbers the node set that the acceptors were drawn from; `acceptors` are node ids in rendezvous order.
    Two messages of one instance with different configs are a bug or a rolled-back database: the second is refused.
    """

    generation: int
    acceptors: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.acceptors) not in (1, 3, 5):
            raise ValueError(f"an instance has 1, 3 or 5 acceptors, not {len(self.acceptors)}")
        if len(set(self.acceptors)) != len(self.acceptors):
            raise ValueError("acceptors must be distinct")

    @property
    def classic_quorum(self) -> int:
        """Answers that settle a prepare or accept above ballot 0: a majority."""
        return len(self.acceptors) // 2 + 1

    @property
    def fast_quorum(self) -> int:
        """Acceptances at ballot 0 that choose a value: 1 of 1, 3 of 3, 4 of 5."""
        return {1: 1, 3: 3, 5: 4}[len(self.acceptors)]


def acceptor_count(nodes: int) -> int:
    """How many acceptors a node set of this size gives an instance: 5, 3 or 1."""
    return 5 if nodes >= 5 else 3 if nodes >= 3 else 1
