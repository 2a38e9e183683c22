"""Whether a file ends where its own headers say. ffmpeg copies what is there of a cut-off file and calls it success.

Looks at top-level headers only, a few reads. Where the headers leave the size open (a recording that was never closed)
or the format states none (FLV), nothing is claimed; `chunk_stream` still compares durations.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Final

from vstack.core.fmp4.boxes import LARGE_HEADER_BYTES, parse_header
from vstack.errors import InvalidMediaError

_MAX_HEADERS: Final = 1_000_000
_MP4_MEDIA: Final = (b"mdat", b"moof", b"moov")
_EBML: Final = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT: Final = b"\x18\x53\x80\x67"
_RIFF_HEADER_BYTES: Final = 8


def refuse_cut_off(path: Path, container: str) -> None:
    """InvalidMediaError where bytes are missing at the end; `container` is ffprobe's name for the format."""
    declared_end = {"mov": _mp4_end, "matroska": _matroska_end, "avi": _avi_end}.get(container.partition(",")[0])
    if declared_end is None:
        return
    with path.open("rb") as file:
        actual = path.stat().st_size
        missing = declared_end(file, actual) - actual
    if missing > 0:
        raise InvalidMediaError(f"the file is cut off: {missing} bytes are missing at its end")


def _mp4_end(file: BinaryIO, actual: int) -> int:
    """Where the last box of media ends; other boxes may be padding that somebody trimmed."""
    at = end = 0
    for _ in range(_MAX_HEADERS):
        file.seek(at)
        header = parse_header(file.read(LARGE_HEADER_BYTES))
        if header is None or header.size_bytes is None:
            break
        at += header.size_bytes
        if header.kind in _MP4_MEDIA:
            end = at
        if at >= actual:
            break
    return end


def _avi_end(file: BinaryIO, actual: int) -> int:
    """The end of the last RIFF chunk: long files have several (OpenDML)."""
    at = end = 0
    while at < actual:
        file.seek(at)
        header = file.read(_RIFF_HEADER_BYTES)
        if len(header) < _RIFF_HEADER_BYTES or not header.startswith(b"RIFF"):
            break
        (size,) = struct.unpack_from("<I", header, 4)
        at += _RIFF_HEADER_BYTES + size
        end = at
    return end


def _matroska_end(file: BinaryIO, actual: int) -> int:
    """The end of the segment, which follows the EBML header and holds all the rest (RFC 8794, RFC 9559)."""
    if file.read(len(_EBML)) != _EBML:
        return 0
    file.seek(_ebml_size(file) or actual, 1)
    if file.read(len(_MATROSKA_SEGMENT)) != _MATROSKA_SEGMENT:
        return 0
    size = _ebml_size(file)
    return 0 if size is None else file.tell() + size


def _ebml_size(file: BinaryIO) -> int | None:
    """A size of 1 to 8 bytes, as many as its leading zero bits say; None if unknown (all ones) or invalid."""
    first = file.read(1)
    length = 9 - first[0].bit_length() if first else 9
    if length > 8:
        return None
    bits = 7 * length
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
