"""From the bytes of a fragmented MP4 to chunks: box reader, fragment timing and packer in one push interface.

Invariant: the concatenated chunks are the bytes pushed. Time advances to the latest end of any track's samples in
presentation time, so the sum over fragments telescopes to the length of the video, whatever each fragment rounds or a
variable frame rate does. Segments follow the first video track.
"""

from collections.abc import Iterator
from typing import Final

from vstack.core.fmp4.boxes import MAX_BOX_BYTES, Box, BoxReader
from vstack.core.fmp4.chunk import PackedChunk
from vstack.core.fmp4.fragment import TrackFragment, is_random_access, parse_moof
from vstack.core.fmp4.init_segment import Track, parse_moov
from vstack.core.fmp4.packer import DEFAULT_LIMITS, Fragment, Limits, Packer
from vstack.errors import InvalidMediaError
from vstack.units import MIB

MAX_FRAGMENT_BYTES: Final = MAX_BOX_BYTES + MIB


class Mp4Chunker:
    """Push the bytes of one fragmented MP4, in pieces of any size, then `finish`."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._reader = BoxReader()
        self._head: list[Box] = []  # boxes that wait for the moov or mdat they belong before
        self._head_bytes = 0
        self._tracks: dict[int, Track] = {}
        self._clock: _Clock | None = None
        self._packer: Packer | None = None

    def push(self, data: bytes) -> Iterator[PackedChunk]:
        """The chunks that `data` completes. InvalidMediaError where it is no fragmented MP4."""
        for box in self._reader.push(data):
            self._hold(box)
            if self._packer is None:
                if box.kind == b"moov":
                    self._start(box)
            elif box.kind == b"mdat":
                yield from self._packer.push(self._fragment())

    def finish(self) -> Iterator[PackedChunk]:
        """What was held back, ending with the final chunk. InvalidMediaError for a stream cut short or without data."""
        self._reader.finish()
        if self._packer is None:
            raise InvalidMediaError("the MP4 stream has no moov box")
        if self._head:
            yield from self._packer.push(Fragment(self._take_head(), 0, random_access=False))
        yield self._packer.finish()

    def _hold(self, box: Box) -> None:
        self._head.append(box)
        self._head_bytes += len(box.raw)
        if self._head_bytes > MAX_FRAGMENT_BYTES:
            raise InvalidMediaError(f"{MAX_FRAGMENT_BYTES} bytes of the MP4 make no fragment that can be packed")

    def _start(self, moov: Box) -> None:
        self._tracks = parse_moov(moov)
        self._packer = Packer(self._take_head(), self._limits)

    def _fragment(self) -> Fragment:
        moofs = [box for box in self._head if box.kind == b"moof"]
        if len(moofs) != 1:
            raise InvalidMediaError("an MP4 fragment must have one moof before its mdat")
        parts = parse_moof(moofs[0], self._tracks)
        before = sum(len(box.raw) for box in self._head[: self._head.index(moofs[0])])
        data = self._take_head()
        if self._clock is None:
            self._clock = _Clock(parts)
        duration_us = self._clock.advance(parts)
        return Fragment(data, duration_us, self._starts_segment(parts, memoryview(data)[before:]))

    def _starts_segment(self, parts: tuple[TrackFragment, ...], data: memoryview) -> bool:
        video = next((track for track in self._tracks.values() if track.is_video), None)
        part = next((part for part in parts if part.track is video), None)
        return part is not None and is_random_access(part, data)

    def _take_head(self) -> bytes:
        data = b"".join(box.raw for box in self._head)
        self._head, self._head_bytes = [], 0
        return data


class _Clock:
    """How far the video reaches, in microseconds of presentation time.

    It starts with the first sample to be shown; what an edit list puts before zero is decoded but never shown.
    """

    def __init__(self, first: tuple[TrackFragment, ...]) -> None:
        self._end_us = max(0, min((part.shown_us()[0] for part in first), default=0))

    def advance(self, parts: tuple[TrackFragment, ...]) -> int:
        """How much later the video ends with these samples."""
        before = self._end_us
        self._end_us = max([before, *(part.shown_us()[1] for part in parts)])
        return self._end_us - before
