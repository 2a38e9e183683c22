"""Entries: record headers condensed to what replay needs, and the packed form that footers and memory keep them in.

An id is stored as what it shares with the entry before and the rest, so neighbouring chunks of one video take about 24
bytes each. The packed form depends on nothing but the entries and their order.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vstack.core.superblock import layout
from vstack.core.superblock.record import Record, RecordType, TombstoneBody

_FIXED: Final = struct.Struct("<BBBxHIQI")
_TARGET: Final = struct.Struct("<16sI")


@dataclass(frozen=True, slots=True)
class Entry:
    """What replay needs of one record. `target_*` only for a tombstone."""

    sequence: int
    type: RecordType
    page: int
    pages: int
    chunk_id: str
    epoch: int = 0
    target_uuid: UUID | None = None
    target_page: int = 0

    @classmethod
    def of(cls, record: Record, page: int) -> "Entry":
        """The entry of a record whose header is page `page` of its superblock."""
        target = record.body if isinstance(record.body, TombstoneBody) else None
        return cls(
            sequence=record.stamp.sequence,
            type=record.type,
            page=page,
            pages=record.pages,
            chunk_id=record.chunk_id,
            epoch=record.epoch,
            target_uuid=target.target_uuid if target else None,
            target_page=target.target_page if target else 0,
        )

    def location(self, slot: int) -> int:
        """Its packed location in superblock file `slot`."""
        return layout.pack(slot, self.page, self.pages)


class EntryLog:
    """Entries in the order in which they were added, packed."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._packed = bytearray()
        self._last_id = b""
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        chunk_id = entry.chunk_id.encode("ascii")
        shared = _shared_prefix(self._last_id, chunk_id)
        self._packed += _FIXED.pack(
            shared, len(chunk_id) - shared, entry.type, entry.pages, entry.page, entry.sequence, entry.epoch
        )
        if entry.target_uuid is not None:
            self._packed += _TARGET.pack(entry.target_uuid.bytes, entry.target_page)
        self._packed += chunk_id[shared:]
        self._last_id = chunk_id

    def __iter__(self) -> Iterator[Entry]:
        return unpack(bytes(self._packed))

    def packed(self) -> bytes:
        return bytes(self._packed)

    @classmethod
    def load(cls, packed: bytes) -> "EntryLog":
        """What `packed` gave, ready for more."""
        log = cls()
        log._packed += packed
        for entry in log:
            log._last_id = entry.chunk_id.encode("ascii")
        return log


def unpack(packed: bytes) -> Iterator[Entry]:
    """The entries of a packed log."""
    offset, chunk_id = 0, b""
    while offset < len(packed):
        shared, own, kind, pages, page, sequence, epoch = _FIXED.unpack_from(packed, offset)
        offset += _FIXED.size
        target_uuid, target_page = None, 0
        if kind == RecordType.TOMBSTONE:
            raw, target_page = _TARGET.unpack_from(packed, offset)
            target_uuid = UUID(bytes=raw)
            offset += _TARGET.size
        chunk_id = chunk_id[:shared] + packed[offset : offset + own]
        offset += own
        yield Entry(sequence, RecordType(kind), page, pages, chunk_id.decode("ascii"), epoch, target_uuid, target_page)


def _shared_prefix(one: bytes, other: bytes) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
