"""The MP4 box reader: bytes in, whole boxes out, never more memory than the largest box allowed.

Invariants: concatenating `raw` of all boxes gives back the bytes pushed; a declared size is checked against the limit
before a byte of the body is kept, so a hostile header allocates nothing. Box layout: ISO/IEC 14496-12, 4.2.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vstack.errors import InvalidMediaError
from vstack.units import MIB

MAX_BOX_BYTES: Final = 32 * MIB
"""A fragment lives in memory whole; ffmpeg is told to make them of about 1 MB, and one frame may exceed that."""

COMPACT_HEADER_BYTES: Final = 8
LARGE_HEADER_BYTES: Final = 16
_EXTENDS_TO_EOF: Final = 0
_HAS_LARGE_SIZE: Final = 1


@dataclass(frozen=True, slots=True)
class BoxHeader:
    """`size_bytes` counts the header; None means the box reaches to the end of the file."""

    kind: bytes
    header_bytes: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Box:
    """One whole box: `raw` with its header, `body` without."""

    kind: bytes
    raw: memoryview
    header_bytes: int

    @property
    def body(self) -> memoryview:
        return self.raw[self.header_bytes :]


def parse_header(data: bytes | bytearray | memoryview) -> BoxHeader | None:
    """The header at the start of `data`, None while bytes of it are missing; InvalidMediaError if it is impossible."""
    if len(data) < COMPACT_HEADER_BYTES:
        return None
    size, kind = struct.unpack_from(">I4s", data)
    header_bytes = COMPACT_HEADER_BYTES
    if size == _EXTENDS_TO_EOF:
        return BoxHeader(kind, header_bytes, None)
    if size == _HAS_LARGE_SIZE:
        if len(data) < LARGE_HEADER_BYTES:
            return None
        (size,) = struct.unpack_from(">Q", data, COMPACT_HEADER_BYTES)
        header_bytes = LARGE_HEADER_BYTES
    if size < header_bytes:
        raise InvalidMediaError(f"an MP4 box claims {size} bytes, less than its own header")
    return BoxHeader(kind, header_bytes, size)


class BoxReader:
    """Cuts a byte stream, pushed in pieces of any size, into its top-level boxes."""

    def __init__(self, *, max_box_bytes: int = MAX_BOX_BYTES) -> None:
        self._max_box_bytes = max_box_bytes
        self._pending = bytearray()

    def push(self, data: bytes) -> Iterator[Box]:
        """The boxes that `data` completes. InvalidMediaError for a box above the limit or of unknown size."""
        self._pending += data
        while (header := parse_header(self._pending)) is not None:
            size = self._checked_size(header)
            if len(self._pending) < size:
                return
            raw = bytes(memoryview(self._pending)[:size])
            del self._pending[:size]
            yield Box(header.kind, memoryview(raw), header.header_bytes)

    def finish(self) -> None:
        """InvalidMediaError where the stream ended inside a box."""
        if self._pending:
            raise InvalidMediaError("the MP4 stream ends inside a box")

    def _checked_size(self, header: BoxHeader) -> int:
        if header.size_bytes is None:
            raise InvalidMediaError("an MP4 box of unknown size cannot be streamed")
        if header.size_bytes > self._max_box_bytes:
            raise InvalidMediaError(f"an MP4 box of {header.size_bytes} bytes is above {self._max_box_bytes}")
        return header.size_bytes


def children(body: memoryview) -> Iterator[Box]:
    """The boxes inside a container's body; InvalidMediaError where they do not fill it exactly."""
    while body:
        header = parse_header(body)
        if header is None:
            raise InvalidMediaError("an MP4 box ends inside a header")
        size = len(body) if header.size_bytes is None else header.size_bytes
        if size > len(body):
            raise InvalidMediaError("an MP4 box is larger than the box around it")
        yield Box(header.kind, body[:size], header.header_bytes)
        body = body[size:]
