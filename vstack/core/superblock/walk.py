"""Reading a log back: the recovery walk, as an algorithm over `read(offset, length)`.

Rules
- From `start`, each valid header leads to the next by its length.
- An invalid header never ends the walk: from there every page up to the end of the data area is tried for a header of
  this superblock with a higher sequence. Bytes passed over before one are a gap, reported and quarantined.
- Whatever cannot be read counts as invalid, page by page.
- The log ends after the last valid header's record; that is the append offset. It is never stored in the log itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vstack.core.superblock import record as records
from vstack.core.superblock.header import SuperblockHeader
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES, Bytes, data_end
from vstack.core.superblock.record import Record
from vstack.units import MIB

Read = Callable[[int, int], Bytes]
"""read(offset, length): exactly these bytes, or OSError. The result may be overwritten by the next call."""

_STEP_BYTES: Final = 16 * PAGE_BYTES
_SCAN_BYTES: Final = 1 * MIB


@dataclass(frozen=True, slots=True)
class Found:
    """A valid record header at a byte offset."""

    offset: int
    record: Record

    @property
    def end(self) -> int:
        return self.offset + self.record.pages * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes in the log that belong to no valid record."""

    offset: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Walk:
    """What a log holds from where the walk began."""

    records: tuple[Found, ...]
    gaps: tuple[Gap, ...]
    append_offset: int


def walk(read: Read, header: SuperblockHeader, start: int = DATA_OFFSET, *, look_ahead: bool = True) -> Walk:
    """All records from `start`. Without `look_ahead` the first invalid header ends the log (after a clean close)."""
    end = data_end(header.superblock_bytes)
    window = _Window(read, end)
    found: list[Found] = []
    gaps: list[Gap] = []
    offset, sequence = start, 0
    while offset < end:
        record = _decode(window.page(offset, _STEP_BYTES), header, offset, end, sequence)
        if record is None:
            if not look_ahead:
                break
            beyond = _next_valid(window, header, offset + PAGE_BYTES, end, sequence)
            if beyond is None:
                break
            gaps.append(Gap(offset, beyond - offset))
            offset = beyond
            continue
        found.append(Found(offset, record))
        offset, sequence = found[-1].end, record.stamp.sequence
    return Walk(tuple(found), tuple(gaps), found[-1].end if found else start)


def _next_valid(window: "_Window", header: SuperblockHeader, offset: int, end: int, above: int) -> int | None:
    for candidate in range(offset, end, PAGE_BYTES):
        if _decode(window.page(candidate, _SCAN_BYTES), header, candidate, end, above) is not None:
            return candidate
    return None


def _decode(page: memoryview | None, header: SuperblockHeader, offset: int, end: int, above: int) -> Record | None:
    if page is None:
        return None
    record = records.decode(page, header.superblock_uuid, header.salt)
    if record is None or record.stamp.sequence <= above or offset + record.pages * PAGE_BYTES > end:
        return None
    return record


class _Window:
    """Reads ahead, so that neighbouring pages cost one read; falls back to single pages around unreadable ones."""

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._start = 0
        self._view = memoryview(b"")

    def page(self, offset: int, ahead_bytes: int) -> memoryview | None:
        """One page, None where it cannot be read."""
        at = offset - self._start
        if not 0 <= at < len(self._view):
            self._fill(offset, min(ahead_bytes, self._end - offset))
            at = 0
        return self._view[at : at + PAGE_BYTES] if self._view else None

    def _fill(self, offset: int, length: int) -> None:
        self._start = offset
        try:
            self._view = memoryview(self._read(offset, length))
        except OSError:
            self._view = memoryview(b"")
            if length > PAGE_BYTES:
                self._fill(offset, PAGE_BYTES)
