"""The footer: the index of a sealed superblock, in its last 256 KiB. Entries are record headers condensed.

Invariant: a valid footer is authoritative. It names every record that counts, and torn or quarantined bytes between
them are never looked at again. A superblock whose index does not fit has no footer and is walked instead.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from crc32c import crc32c

from vstack.core.superblock import layout
from vstack.core.superblock.header import SuperblockHeader
from vstack.core.superblock.layout import FOOTER_BYTES, PAGE_BYTES
from vstack.core.superblock.record import Record, RecordType, TombstoneBody

MAGIC: Final = b"VSTACKFT"

_FIXED: Final = struct.Struct("<8sI4x16sQQIII")
_CRC_START: Final = 12
_BLOB_OFFSET: Final = 64
_ENTRY: Final = struct.Struct("<BBHIQQ")
_TARGET: Final = struct.Struct("<16sI")
_ZLIB_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What replay needs of one record."""

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


@dataclass(frozen=True, slots=True)
class Footer:
    """`append_offset` is where the log ended; entries are ordered by sequence."""

    entries: tuple[Entry, ...]
    append_offset: int
    quarantined_bytes: int


def pack_entry(entry: Entry) -> bytes:
    """An entry in 24 bytes and its id; a tombstone's target takes 20 more."""
    chunk_id = entry.chunk_id.encode("ascii")
    fixed = _ENTRY.pack(entry.type, len(chunk_id), entry.pages, entry.page, entry.sequence, entry.epoch)
    if entry.target_uuid is None:
        return fixed + chunk_id
    return fixed + _TARGET.pack(entry.target_uuid.bytes, entry.target_page) + chunk_id


def pack_entries(entries: Iterable[Entry]) -> bytes:
    return b"".join(pack_entry(entry) for entry in entries)


def unpack_entries(packed: bytes | bytearray) -> Iterator[Entry]:
    """The entries of `pack_entry` results put together."""
    offset = 0
    while offset < len(packed):
        kind, id_bytes, pages, page, sequence, epoch = _ENTRY.unpack_from(packed, offset)
        offset += _ENTRY.size
        target_uuid, target_page = None, 0
        if kind == RecordType.TOMBSTONE:
            raw, target_page = _TARGET.unpack_from(packed, offset)
            target_uuid = UUID(bytes=raw)
            offset += _TARGET.size
        chunk_id = packed[offset : offset + id_bytes].decode("ascii")
        offset += id_bytes
        yield Entry(sequence, RecordType(kind), page, pages, chunk_id, epoch, target_uuid, target_page)


def encode(header: SuperblockHeader, footer: Footer) -> bytes | None:
    """The footer in whole pages, at most FOOTER_BYTES; None where the entries do not fit."""
    raw = pack_entries(footer.entries)
    blob = zlib.compress(raw, _ZLIB_LEVEL)
    if _BLOB_OFFSET + len(blob) > FOOTER_BYTES:
        return None
    used = _BLOB_OFFSET + len(blob)
    page = bytearray(-(-used // PAGE_BYTES) * PAGE_BYTES)
    _FIXED.pack_into(
        page,
        0,
        MAGIC,
        0,
        header.superblock_uuid.bytes,
        footer.append_offset,
        footer.quarantined_bytes,
        len(footer.entries),
        len(raw),
        len(blob),
    )
    page[_BLOB_OFFSET:used] = blob
    struct.pack_into("<I", page, len(MAGIC), crc32c(memoryview(page)[_CRC_START:used], header.salt))
    return bytes(page)


def decode(footer: bytes | memoryview, header: SuperblockHeader) -> Footer | None:
    """The footer of this superblock, None where it has no valid one."""
    magic, checksum, uuid, append_offset, quarantined, _, raw_bytes, blob_bytes = _FIXED.unpack_from(footer)
    used = _BLOB_OFFSET + blob_bytes
    if magic != MAGIC or uuid != header.superblock_uuid.bytes or used > len(footer):
        return None
    if checksum != crc32c(memoryview(footer)[_CRC_START:used], header.salt):
        return None
    raw = zlib.decompress(memoryview(footer)[_BLOB_OFFSET:used], bufsize=raw_bytes or 1)
    return Footer(tuple(unpack_entries(raw)), append_offset, quarantined)
