"""Superblock files: their names, and rewriting their headers so that one valid copy survives any cut.

All functions block; they run in the upkeep thread.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from vstack.core.superblock import footer, header
from vstack.core.superblock.header import COMPAT_FILLED, State, SuperblockHeader
from vstack.core.superblock.layout import (
    DATA_OFFSET,
    FOOTER_BYTES,
    HEADER_OFFSETS,
    PAGE_BYTES,
    data_end,
)
from vstack.storage.directio import aligned_buffer
from vstack.storage.disk import File
from vstack.units import MIB

_NAME: Final = re.compile(r"([0-9]{6,7})\.superblock")
FILL_PIECE_BYTES: Final = 4 * MIB

RandomBytes = Callable[[int], bytes]


def name_of(slot: int) -> str:
    return f"{slot:06d}.superblock"


def slot_of(name: str) -> int | None:
    """The slot of a superblock file's name, None for any other file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Birth:
    """Makes the headers of one disk's superblocks."""

    disk_uuid: UUID
    node_id: str
    random_bytes: RandomBytes

    def free(self, sequence: int, superblock_bytes: int, *, filled: bool) -> SuperblockHeader:
        """A header without a past: new UUID, new salt."""
        return SuperblockHeader(
            superblock_uuid=UUID(bytes=self.random_bytes(16), version=4),
            disk_uuid=self.disk_uuid,
            node_id=self.node_id,
            state=State.FREE,
            sequence=sequence,
            superblock_bytes=superblock_bytes,
            salt=int.from_bytes(self.random_bytes(4), "little"),
            compat=COMPAT_FILLED if filled else 0,
        )

    def open(self, sequence: int, earlier: SuperblockHeader) -> SuperblockHeader:
        """The header that lets records in; never the UUID of an earlier life."""
        return replace(self.free(sequence, earlier.superblock_bytes, filled=earlier.filled), state=State.OPEN)


def read_headers(file: File) -> list[SuperblockHeader | None]:
    """Both copies, None for one that is damaged or cannot be read. SettingsError for a newer format."""
    return [_read_header(file, offset) for offset in HEADER_OFFSETS]


def write_headers(file: File, wanted: SuperblockHeader) -> None:
    """Replace both copies, the second first, each durable before the next is touched. OSError."""
    page = aligned_buffer(PAGE_BYTES)
    page[:] = wanted.encode()
    for offset in reversed(HEADER_OFFSETS):
        file.pwritev([page], offset)
        file.fdatasync()


def read_footer(file: File, of: SuperblockHeader) -> footer.Footer | None:
    """The footer, None where there is no valid one or it cannot be read."""
    memory = aligned_buffer(FOOTER_BYTES)
    try:
        file.preadv([memory], data_end(of.superblock_bytes))
    except OSError:
        return None
    return footer.decode(memory, of)


def write_footer(file: File, of: SuperblockHeader, index: footer.Footer) -> None:
    """Write the footer durably where it fits; where not, make sure that there is none. OSError."""
    encoded = footer.encode(of, index) or bytes(PAGE_BYTES)
    memory = aligned_buffer(len(encoded))
    memory[:] = encoded
    file.pwritev([memory], data_end(of.superblock_bytes))
    file.fdatasync()


def fill_offsets(superblock_bytes: int) -> range:
    """Where the pieces of a zero-fill start."""
    return range(DATA_OFFSET, superblock_bytes, FILL_PIECE_BYTES)


def fill_piece(file: File, offset: int, superblock_bytes: int) -> None:
    """Write zeros over one piece of an empty superblock. OSError."""
    file.pwritev([aligned_buffer(min(FILL_PIECE_BYTES, superblock_bytes - offset))], offset)


def _read_header(file: File, offset: int) -> SuperblockHeader | None:
    page = aligned_buffer(PAGE_BYTES)
    try:
        file.preadv([page], offset)
    except OSError:
        return None
    return header.decode(page)
