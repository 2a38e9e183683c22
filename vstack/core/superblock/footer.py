"""The footer: the index of a sealed superblock, in its last 256 KiB.

Invariant: a valid footer is authoritative. It names every record that counts, and torn or quarantined bytes between
them are never looked at again. A superblock whose index does not fit has no footer and is walked instead.
"""

import struct
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from vstack.core.superblock.entries import Entry, EntryLog, unpack
from vstack.core.superblock.header import SuperblockHeader
from vstack.core.superblock.layout import FOOTER_BYTES, PAGE_BYTES, Bytes

MAGIC: Final = b"VSTACKFT"

_FIXED: Final = struct.Struct("<8sI4x16sQQII")
_CRC_START: Final = 12
_ENTRIES_OFFSET: Final = 64


@dataclass(frozen=True, slots=True)
class Footer:
    """`append_offset` is where the log ended. Entries are ordered by sequence here, by id on disk, where that packs."""

    entries: tuple[Entry, ...]
    append_offset: int
    quarantined_bytes: int


def encode(header: SuperblockHeader, footer: Footer) -> bytes | None:
    """The footer in whole pages, at most FOOTER_BYTES; None where the entries do not fit."""
    packed = EntryLog(sorted(footer.entries, key=lambda entry: (entry.chunk_id, entry.sequence))).packed()
    used = _ENTRIES_OFFSET + len(packed)
    if used > FOOTER_BYTES:
        return None
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
        len(packed),
    )
    page[_ENTRIES_OFFSET:used] = packed
    struct.pack_into("<I", page, len(MAGIC), crc32c(memoryview(page)[_CRC_START:used], header.salt))
    return bytes(page)


def decode(footer: Bytes, header: SuperblockHeader) -> Footer | None:
    """The footer of this superblock, None where it has no valid one."""
    view = memoryview(footer)
    magic, checksum, uuid, append_offset, quarantined_bytes, count, packed_bytes = _FIXED.unpack_from(view)
    used = _ENTRIES_OFFSET + packed_bytes
    if magic != MAGIC or uuid != header.superblock_uuid.bytes or used > len(view):
        return None
    if checksum != crc32c(view[_CRC_START:used], header.salt):
        return None
    entries = sorted(unpack(bytes(view[_ENTRIES_OFFSET:used])), key=lambda entry: entry.sequence)
    return Footer(tuple(entries), append_offset, quarantined_bytes) if len(entries) == count else None
