"""What happens to a playback (events) and what it asks of its driver (effects)."""

from dataclasses import dataclass

from vstack.core.playback.plan import ChunkPlan, Plan, Source
from vstack.core.playback.scoring import Failure


@dataclass(frozen=True, slots=True)
class Demand:
    """What the buffer asks for: chunks below `wanted` may be fetched, those below `urgent` are due soon."""

    wanted: int
    urgent: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Download `attempt` has received so many bytes."""

    attempt: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Download `attempt` is complete and verified."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    attempt: int
    reason: Failure


@dataclass(frozen=True, slots=True)
class Assembled:
    """The bytes of chunk `index` are whole and verified, in answer to `Complete`."""

    index: int


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What was fetched of chunk `index` does not make up the chunk, in answer to `Complete`: fetch it again."""

    index: int


@dataclass(frozen=True, slots=True)
class Replanned:
    """A fresh plan of the same video, or None where it cannot be had now."""

    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Only time has passed."""


Event = Progress | Fetched | Failed | Assembled | Spoiled | Replanned | Tick


@dataclass(frozen=True, slots=True)
class Fetch:
    """Start download `attempt` of `source` for chunk `index`."""

    attempt: int
    index: int
    source: Source
    hedge: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cut off download `attempt` and forget it. `reason` is None for one that is no longer needed."""

    attempt: int
    reason: Failure | None


@dataclass(frozen=True, slots=True)
class Complete:
    """Everything of chunk `index` that is needed has been fetched: put it together, answer Assembled or Spoiled."""

    index: int
    chunk: ChunkPlan
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Fetch the plan again and answer with `Replanned`."""


Effect = Fetch | Cancel | Complete | Refresh
