"""Random access as the bitstream has it: the container's sync flag is not to be trusted for H.264 and HEVC.

Muxers mark open-GOP I pictures as sync samples although pictures after them refer to what came before. So: H.264 counts
an IDR slice (NAL type 5) only. HEVC counts IDR and BLA without RASL; a CRA counts only if no RASL picture, which
refers across it, follows (ITU-T H.264 table 7-1, H.265 table 7-1 and 8.1.3).
"""

from collections.abc import Iterable, Iterator
from typing import Final

_H264_SLICES: Final = range(1, 6)
_H264_IDR: Final = 5

_HEVC_PICTURES: Final = range(32)
_HEVC_TRAILING: Final = range(6)
_HEVC_RADL: Final = (6, 7)
_HEVC_BLA_W_RADL: Final = 17
_HEVC_CLEAN_START: Final = (_HEVC_BLA_W_RADL, 18, 19, 20)
_HEVC_CRA: Final = 21


def h264_is_random_access(sample: memoryview, length_bytes: int) -> bool:
    """Whether the sample's first slice is one of an IDR picture."""
    for header in _nal_headers(sample, length_bytes):
        kind = header & 0x1F
        if kind in _H264_SLICES:
            return kind == _H264_IDR
    return False


def hevc_is_random_access(samples: Iterable[memoryview], length_bytes: int, *, reordered: bool) -> bool:
    """Whether decoding may start at the first of `samples` (the rest of the fragment, in decoding order).

    `reordered` says that the first sample is shown later than it is decoded. Without that no later sample can be
    shown before it, so a CRA has no leading pictures. With it, the fragment must show a picture that is not RASL
    behind the RADL ones; a fragment that ends before is taken for the worse case.
    """
    pictures = (_hevc_picture(sample, length_bytes) for sample in samples)
    first = next(pictures, None)
    if first in _HEVC_CLEAN_START:
        return True
    if first != _HEVC_CRA:
        return False
    if not reordered:
        return True
    following = next((kind for kind in pictures if kind not in _HEVC_RADL), None)
    return following in _HEVC_TRAILING or following in _HEVC_CLEAN_START or following == _HEVC_CRA


def _hevc_picture(sample: memoryview, length_bytes: int) -> int | None:
    kinds = ((header >> 1) & 0x3F for header in _nal_headers(sample, length_bytes))
    return next((kind for kind in kinds if kind in _HEVC_PICTURES), None)


def _nal_headers(sample: memoryview, length_bytes: int) -> Iterator[int]:
    """The first byte of each NAL unit; stops where a length runs past the sample."""
    at = 0
    while at + length_bytes < len(sample):
        size = int.from_bytes(sample[at : at + length_bytes], "big")
        yield sample[at + length_bytes]
        at += length_bytes + size
