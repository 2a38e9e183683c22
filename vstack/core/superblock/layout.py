"""Sizes of the superblock format v1, and how a record's place is packed into one integer.

Invariants: everything on disk starts at a multiple of `PAGE_BYTES`; a record lies whole inside one data area.
"""

from typing import Final, NamedTuple

from vstack.units import GIB, KIB, MAX_CHUNK_BYTES

FORMAT_VERSION: Final = 1

Bytes = bytes | bytearray | memoryview
"""What a decoder reads from."""

PAGE_BYTES: Final = 4 * KIB
BLOCK_BYTES: Final = 64 * KIB
"""What one crc32c of a payload covers."""

HEADER_OFFSETS: Final = (0, PAGE_BYTES)
DATA_OFFSET: Final = 64 * KIB
FOOTER_BYTES: Final = 256 * KIB

MIN_SUPERBLOCK_BYTES: Final = 512 * KIB
MAX_SUPERBLOCK_BYTES: Final = 4 * GIB

MAX_RECORD_PAGES: Final = 1 + MAX_CHUNK_BYTES // PAGE_BYTES
MAX_BATCH_RECORDS: Final = 512
"""Most records that one write makes visible together."""

_PAGES_BITS: Final = 10
_PAGE_BITS: Final = 20


class Location(NamedTuple):
    """Where a record lies: file number, page within the file, length in pages with its header."""

    slot: int
    page: int
    pages: int

    @property
    def offset(self) -> int:
        """Bytes from the start of the file."""
        return self.page * PAGE_BYTES

    @property
    def length_bytes(self) -> int:
        return self.pages * PAGE_BYTES


def pack(slot: int, page: int, pages: int) -> int:
    """A location as an integer below 2^50."""
    return (slot << (_PAGE_BITS + _PAGES_BITS)) | (page << _PAGES_BITS) | pages


def unpack(packed: int) -> Location:
    return Location(
        packed >> (_PAGE_BITS + _PAGES_BITS),
        (packed >> _PAGES_BITS) & ((1 << _PAGE_BITS) - 1),
        packed & ((1 << _PAGES_BITS) - 1),
    )


def slot_of(packed: int) -> int:
    return packed >> (_PAGE_BITS + _PAGES_BITS)


def pages_for(payload_bytes: int) -> int:
    """Pages of a record with this payload: its header and the padded payload."""
    return 1 + -(-payload_bytes // PAGE_BYTES)


def blocks_for(payload_bytes: int) -> int:
    """How many block checksums a payload has."""
    return -(-payload_bytes // BLOCK_BYTES)


def data_end(superblock_bytes: int) -> int:
    """Where the data area ends and the footer begins."""
    return superblock_bytes - FOOTER_BYTES
