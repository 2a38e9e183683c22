"""Which redundancy a video deserves, and what each costs. Pure policy.

Popular videos are replicated, so that many clients find a whole copy nearby; the others are erasure-coded, which
survives the loss of as many nodes for little more than half the bytes.
"""

from dataclasses import dataclass
from typing import Final

from vstack.core.decree import Mode
from vstack.units import (
    DATA_SHARDS,
    MAX_CHUNK_BYTES,
    MIB,
    PARITY_SHARDS,
    REPLICATION_FACTOR,
    TOTAL_SHARDS,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a mode costs: `overhead_factor` is bytes on disks per byte of video."""

    overhead_factor: float
    nodes_required: int
    failures_tolerated: int

    @property
    def chunk_mib(self) -> float:
        """MiB on disks for one full chunk."""
        return self.overhead_factor * MAX_CHUNK_BYTES / MIB


PROFILES: Final = {
    Mode.REPLICATION: Profile(float(REPLICATION_FACTOR), REPLICATION_FACTOR, REPLICATION_FACTOR - 1),
    Mode.ERASURE_CODING: Profile(TOTAL_SHARDS / DATA_SHARDS, TOTAL_SHARDS, PARITY_SHARDS),
}


def recommend(view_count: int, *, popularity_threshold: int, override: Mode | None = None) -> Mode:
    """The mode for a video with this many views; an override decides alone."""
    if override is not None:
        return override
    return Mode.REPLICATION if view_count >= popularity_threshold else Mode.ERASURE_CODING


def fragment_bytes(chunk_bytes: int) -> int:
    """The size of each fragment of an erasure-coded chunk: a third, rounded up."""
    return -(-chunk_bytes // DATA_SHARDS)


def savings_percent(logical_bytes: int, physical_bytes: int) -> float:
    """How much less is on disks than full replication would take; 0 for nothing stored. Negative if it is more."""
    if logical_bytes == 0:
        return 0.0
    return 100.0 * (1 - physical_bytes / (logical_bytes * PROFILES[Mode.REPLICATION].overhead_factor))
