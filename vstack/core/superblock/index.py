"""A compact multimap from 64-bit keyed hashes to record locations: 16 bytes a slot, about 20 to 27 an entry.

Open addressing with linear probing and backward-shift deletion (Knuth, TAOCP vol. 3, 6.4, algorithm R), in many small
segments, so that growing rehashes a thousand entries and never stalls. Two ids with the same hash are two entries: the
caller tells them apart by the record header on disk.

Invariants: a location appears at most once; a slot whose location is 0 is empty (page 0 never holds a record).
"""

from array import array
from collections.abc import Callable, Iterator
from typing import Final

SEGMENTS: Final = 1024
_SEGMENT_SHIFT: Final = 54
_FIRST_SLOTS: Final = 4
_MAX_LOAD_NUMERATOR, _MAX_LOAD_DENOMINATOR = 4, 5


class CompactIndex:
    """Not thread-safe: one thread owns it."""

    def __init__(self) -> None:
        self._tables: list[array[int]] = [array("Q") for _ in range(SEGMENTS)]
        self._counts = array("Q", bytes(8 * SEGMENTS))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, key_hash: int) -> tuple[int, ...]:
        """All locations under this hash, mostly none or one."""
        table = self._tables[key_hash >> _SEGMENT_SHIFT]
        slots = len(table) // 2
        if not slots:
            return ()
        found: tuple[int, ...] = ()
        slot = key_hash % slots
        while location := table[2 * slot + 1]:
            if table[2 * slot] == key_hash:
                found += (location,)
            slot = slot + 1 if slot + 1 < slots else 0
        return found

    def add(self, key_hash: int, location: int) -> bool:
        """Add an entry; False where exactly this one is there already."""
        if location in self.find(key_hash):
            return False
        segment = key_hash >> _SEGMENT_SHIFT
        slots = len(self._tables[segment]) // 2
        if (self._counts[segment] + 1) * _MAX_LOAD_DENOMINATOR > slots * _MAX_LOAD_NUMERATOR:
            self._resize(segment, max(_FIRST_SLOTS, slots + slots // 4 + 1))
        _place(self._tables[segment], key_hash, location)
        self._counts[segment] += 1
        self._size += 1
        return True

    def remove(self, key_hash: int, location: int) -> bool:
        """Remove exactly this entry; False where it is not there."""
        segment = key_hash >> _SEGMENT_SHIFT
        table = self._tables[segment]
        slots = len(table) // 2
        if not slots:
            return False
        hole = key_hash % slots
        while table[2 * hole] != key_hash or table[2 * hole + 1] != location:
            if not table[2 * hole + 1]:
                return False
            hole = (hole + 1) % slots
        _close_hole(table, hole, slots)
        self._counts[segment] -= 1
        self._size -= 1
        return True

    def items(self) -> Iterator[tuple[int, int]]:
        """(hash, location) of every entry, in no order; the index must not change meanwhile."""
        for table in self._tables:
            for slot in range(0, len(table), 2):
                if table[slot + 1]:
                    yield table[slot], table[slot + 1]

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Drop every entry whose location is not wanted."""
        for key_hash, location in [item for item in self.items() if not wanted(item[1])]:
            self.remove(key_hash, location)

    def dump(self) -> bytes:
        """The tables as they are, for `load`."""
        sizes = array("Q", [len(table) for table in self._tables])
        return b"".join([sizes.tobytes(), self._counts.tobytes(), *(table.tobytes() for table in self._tables)])

    @classmethod
    def load(cls, dumped: bytes | memoryview) -> "CompactIndex":
        """What `dump` wrote; ValueError where it cannot be that."""
        index = cls()
        words = memoryview(dumped).cast("B").cast("Q")
        sizes, counts = words[:SEGMENTS], words[SEGMENTS : 2 * SEGMENTS]
        if len(sizes) + len(counts) + sum(sizes) != len(words):
            raise ValueError("the dump of an index has the wrong length")
        start = 2 * SEGMENTS
        for segment, size in enumerate(sizes):
            index._tables[segment].frombytes(words[start : start + size].cast("B"))
            start += size
        index._counts = array("Q", counts)
        index._size = sum(counts)
        return index

    def _resize(self, segment: int, slots: int) -> None:
        old = self._tables[segment]
        new = array("Q", bytes(16 * slots))
        for slot in range(0, len(old), 2):
            if old[slot + 1]:
                _place(new, old[slot], old[slot + 1])
        self._tables[segment] = new


def _place(table: "array[int]", key_hash: int, location: int) -> None:
    slots = len(table) // 2
    slot = key_hash % slots
    while table[2 * slot + 1]:
        slot = slot + 1 if slot + 1 < slots else 0
    table[2 * slot], table[2 * slot + 1] = key_hash, location


def _close_hole(table: "array[int]", hole: int, slots: int) -> None:
    """Move later entries of the run back, so that every one stays reachable from its home slot."""
    slot = hole
    while True:
        slot = (slot + 1) % slots
        if not table[2 * slot + 1]:
            break
        home = table[2 * slot] % slots
        if (slot - home) % slots >= (slot - hole) % slots:
            table[2 * hole], table[2 * hole + 1] = table[2 * slot], table[2 * slot + 1]
            hole = slot
    table[2 * hole], table[2 * hole + 1] = 0, 0
