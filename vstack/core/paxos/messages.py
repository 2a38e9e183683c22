"""What is said between proposers and acceptors.

Plain frozen records; `vstack.wire.consensus` gives them their JSON form. `value` is opaque bytes, at most
`MAX_VALUE_BYTES`, so that one acceptance always fits one 4 KiB record.
"""

from dataclasses import dataclass
from typing import Final

from vstack.core.paxos.config import Config

MAX_VALUE_BYTES: Final = 3072


@dataclass(frozen=True, slots=True)
class Instance:
    """One consensus instance: a chunk in an epoch, with its acceptors."""

    chunk_id: str
    epoch: int
    config: Config


@dataclass(frozen=True, slots=True)
class Prepare:
    """Phase 1: promise not to accept below `ballot`, and say what was accepted so far."""

    instance: Instance
    ballot: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Phase 2, or at `FAST_BALLOT` the whole fast round: accept `value` unless a higher ballot was promised."""

    instance: Instance
    ballot: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Learn:
    """`value` was chosen. Lets an acceptor answer at once and drop earlier epochs; needs no quorum itself."""

    instance: Instance
    value: bytes


@dataclass(frozen=True, slots=True)
class Retire:
    """The chunk was deleted for good: refuse every later message about it, in every epoch. Irrevocable."""

    instance: Instance


Message = Prepare | Accept | Learn | Retire


@dataclass(frozen=True, slots=True)
class Promise:
    """Answer to Prepare: promised, with the highest acceptance so far (`NO_BALLOT` and None if none)."""

    ballot: int
    accepted_ballot: int
    accepted_value: bytes | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Answer to Accept: durable acceptance of exactly this ballot and value."""

    ballot: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Answer to Prepare or Accept: a higher ballot was promised, or ballot 0 already holds another value."""

    promised: int
    accepted_ballot: int
    accepted_value: bytes | None


@dataclass(frozen=True, slots=True)
class Learned:
    """Answer to Learn, and to anything said to an acceptor that knows the chosen value."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Retired:
    """Answer to anything about a closed instance: the chunk was deleted, or a later epoch of it was decided."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The message names other acceptors than the instance was begun with, or not this node."""

    reason: str


Reply = Promise | Accepted | Rejected | Learned | Retired | Mismatch
