"""What there is to play: every chunk, how long it lasts, and where its bytes are.

A replicated chunk needs any one of its sources, an erasure-coded one any `needed` of its fragments. The scheduler knows
no other difference between the two.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Final

WHOLE: Final = -1
"""`Source.fragment` of a whole chunk."""


@dataclass(frozen=True, slots=True)
class Source:
    """One stored object on one node: `node` is a base URL, `checksum` the hex SHA-256 of exactly `size_bytes`."""

    node: str
    object_id: str
    size_bytes: int
    checksum: str
    fragment: int = WHOLE


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """One chunk: its bytes are complete when `needed` distinct objects among `sources` have been fetched."""

    chunk_id: str
    size_bytes: int
    checksum: str
    duration_s: float
    sources: tuple[Source, ...]
    needed: int = 1


@dataclass(frozen=True)
class Plan:
    """A whole video in playing order."""

    chunks: tuple[ChunkPlan, ...]

    @cached_property
    def ends_s(self) -> tuple[float, ...]:
        """Media time at which each chunk ends."""
        return tuple(itertools.accumulate(chunk.duration_s for chunk in self.chunks))

    @cached_property
    def nodes(self) -> frozenset[str]:
        """Every node that holds something of this video."""
        return frozenset(source.node for chunk in self.chunks for source in chunk.sources)
