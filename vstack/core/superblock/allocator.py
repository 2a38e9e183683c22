"""Where the next record goes, and what a PUT may not take. Pure bookkeeping; the engine holds a lock around it.

Invariants
- Sequences grow in the order of reservation, so within a superblock they grow with the offset.
- `RESERVED_SUPERBLOCKS` empty superblocks are kept from PUTs: on a full disk, deletes, retirements and compaction
  still find room. While fewer are left, PUTs are refused even where the current superblock has room.
- A reservation is outstanding until its flush returned; `stable` never reaches an outstanding one.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from vstack.core.superblock.catalogue import Superblock
from vstack.core.superblock.layout import PAGE_BYTES, data_end

RESERVED_SUPERBLOCKS: Final = 2


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room for `records` adjacent records at `offset`, with sequences from `first_sequence`."""

    superblock: Superblock
    offset: int
    pages: int
    first_sequence: int
    records: int
    stable: int

    @property
    def end(self) -> int:
        return self.offset + self.pages * PAGE_BYTES


class Allocator:
    """`free` are empty superblocks not yet opened; `ready` are opened ones, still empty, taken in order."""

    def __init__(self, next_sequence: int) -> None:
        self.current: Superblock | None = None
        self.ready: deque[Superblock] = deque()
        self.free: dict[int, Superblock] = {}
        self._next_sequence = next_sequence
        self._outstanding: dict[int, Reservation] = {}

    @property
    def empty_superblocks(self) -> int:
        return len(self.ready) + len(self.free)

    @property
    def last_sequence(self) -> int:
        return self._next_sequence - 1

    @property
    def stable(self) -> int:
        """Every sequence up to here is durable."""
        return next(iter(self._outstanding), self._next_sequence) - 1

    def take_sequence(self) -> int:
        """A sequence for a superblock header."""
        self._next_sequence += 1
        return self._next_sequence - 1

    def reserve(self, pages: int, records: int, *, use_reserve: bool) -> Reservation | None:
        """Room for one write; None where a superblock must be opened first, or none may be taken."""
        if not self.can_place(pages, use_reserve=use_reserve):
            return None
        if self._room(self.current) < pages:
            self.current = self.ready.popleft()
        superblock = self.current
        assert superblock is not None
        reservation = Reservation(
            superblock, superblock.append_offset, pages, self._next_sequence, records, self.stable
        )
        self._outstanding[reservation.first_sequence] = reservation
        superblock.append_offset = reservation.end
        self._next_sequence += records
        return reservation

    def can_place(self, pages: int, *, use_reserve: bool) -> bool:
        """Whether `reserve` would find room now."""
        next_room = self._room(self.ready[0] if self.ready else None)
        return self.admits(pages, use_reserve=use_reserve) and max(self._room(self.current), next_room) >= pages

    def admits(self, pages: int, *, use_reserve: bool) -> bool:
        """Whether a write of this size may be placed with the superblocks there are."""
        kept = 0 if use_reserve else RESERVED_SUPERBLOCKS
        return self.empty_superblocks - (self._room(self.current) < pages) >= kept

    def settle(self, reservation: Reservation) -> None:
        """The reservation's bytes are durable."""
        del self._outstanding[reservation.first_sequence]

    def low_water(self, superblock: Superblock) -> int:
        """The offset below which every byte of the superblock is durable."""
        return min(
            (pending.offset for pending in self._outstanding.values() if pending.superblock is superblock),
            default=superblock.append_offset,
        )

    def is_idle(self, superblock: Superblock) -> bool:
        """Whether nothing is in flight to it and nothing more will go in."""
        return superblock is not self.current and self.low_water(superblock) == superblock.append_offset

    def available_bytes(self) -> int:
        """What PUTs may still take of the superblocks there are."""
        if self.empty_superblocks < RESERVED_SUPERBLOCKS:
            return 0
        empty = sorted(
            (superblock.header.superblock_bytes for superblock in (*self.ready, *self.free.values())), reverse=True
        )
        return PAGE_BYTES * self._room(self.current) + sum(empty[: len(empty) - RESERVED_SUPERBLOCKS])

    @staticmethod
    def _room(superblock: Superblock | None) -> int:
        """Pages left in a superblock."""
        if superblock is None:
            return 0
        return (data_end(superblock.header.superblock_bytes) - superblock.append_offset) // PAGE_BYTES
