"""Which records of an unflushed tail count. Pure; the caller reads payloads.

A power cut may keep any subset of what was in flight. A record counts where
- a later record of the same incarnation says that it was durable (`stable`), even if its payload has rotted since:
  reads will say so, and dropping it would hide an acknowledged chunk; or
- its payload is intact and so is every other record of its batch.
Everything else was never acknowledged. The rule looks at nothing but the log, so each recovery decides alike.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vstack.core.superblock.record import ChunkBody
from vstack.core.superblock.walk import Found, Gap, Walk


@dataclass(frozen=True, slots=True)
class Settled:
    """Of one superblock's walk: what counts, and what is quarantined (the walk's gaps and torn records)."""

    records: tuple[Found, ...]
    quarantined: tuple[Gap, ...]
    append_offset: int


def settle(walks: Sequence[Walk], payload_is_intact: Callable[[int, Found], bool]) -> list[Settled]:
    """The verdict on each walk, in order. `payload_is_intact(i, found)` reads a chunk's payload in walk i."""
    stable: dict[int, int] = {}
    for walked in walks:
        for found in walked.records:
            stamp = found.record.stamp
            stable[stamp.incarnation] = max(stable.get(stamp.incarnation, 0), stamp.stable)

    def is_stable(found: Found) -> bool:
        return found.record.stamp.sequence <= stable[found.record.stamp.incarnation]

    good: list[list[Found]] = [
        [
            found
            for found in walked.records
            if is_stable(found) or not isinstance(found.record.body, ChunkBody) or payload_is_intact(index, found)
        ]
        for index, walked in enumerate(walks)
    ]
    members = Counter(found.record.batch_first for records in good for found in records)
    return [
        _verdict(
            walked,
            tuple(
                found
                for found in records
                if is_stable(found) or members[found.record.batch_first] == found.record.stamp.batch_count
            ),
        )
        for walked, records in zip(walks, good, strict=True)
    ]


def _verdict(walked: Walk, counted: tuple[Found, ...]) -> Settled:
    kept = {found.offset for found in counted}
    torn = tuple(Gap(found.offset, found.end - found.offset) for found in walked.records if found.offset not in kept)
    return Settled(counted, tuple(sorted((*walked.gaps, *torn), key=lambda gap: gap.offset)), walked.append_offset)
