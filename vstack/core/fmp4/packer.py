"""The packer: fragments of a movie in, chunks out. A pure state machine.

- Chunks 0..N-1 concatenated are the init segment and all fragments, byte for byte.
- A chunk holds 1 to `chunk_bytes` bytes and lasts at most `chunk_us`. A fragment above either limit is cut by bytes,
  its time shared out in proportion.
- A segment is one or more whole chunks. A new one begins at a random-access fragment once the current one has lasted
  `segment_us`; so every segment but possibly the first starts at a random-access point.
- Durations are rounded cumulatively to milliseconds: their sum is the rounded length of the video.
- The open chunk is held back until more bytes follow, so `last` is true exactly on the final chunk. Memory is one chunk
  and the fragment being pushed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vstack.core.fmp4.chunk import PackedChunk
from vstack.errors import InvalidMediaError
from vstack.units import MAX_CHUNK_BYTES, MAX_CHUNK_DURATION_S

SEGMENT_DURATION_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a chunk, and the time after which a segment ends at the next random-access point."""

    chunk_bytes: int = MAX_CHUNK_BYTES
    chunk_us: int = round(MAX_CHUNK_DURATION_S * 1_000_000)
    segment_us: int = round(SEGMENT_DURATION_S * 1_000_000)


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of bytes that lasts `duration_us`; playback may start at it if `random_access`."""

    data: bytes
    duration_us: int
    random_access: bool


class Packer:
    """Give it the init segment, then every fragment in order, then `finish`."""

    def __init__(self, init: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        if not 0 < len(init) <= limits.chunk_bytes:
            raise InvalidMediaError(f"the init segment of the MP4 is {len(init)} bytes")
        self._limits = limits
        self._init_bytes = len(init)
        self._number = 0
        self._segment = 0
        self._segment_us = 0
        self._start_us = 0  # where the open chunk starts in the video
        self._chunk_us = 0
        self._pieces: list[bytes] = [init]
        self._chunk_bytes = len(init)
        self._fragments_seen = False

    def push(self, fragment: Fragment) -> Iterator[PackedChunk]:
        """The chunks that `fragment` closes; zero, one, or more after a fragment above the limits."""
        assert fragment.data
        assert fragment.duration_us >= 0
        if fragment.random_access and self._segment_us >= self._limits.segment_us:
            yield self._close(last=False)
            self._segment += 1
            self._segment_us = 0
        for data, duration_us in self._cut(fragment):
            if not self._fits(len(data), duration_us):
                yield self._close(last=False)
            self._append(data, duration_us)
        self._fragments_seen = True

    def finish(self) -> PackedChunk:
        """The final chunk. InvalidMediaError if no fragment was ever pushed."""
        if not self._fragments_seen:
            raise InvalidMediaError("the file holds no video data")
        return self._close(last=True)

    def _cut(self, fragment: Fragment) -> Iterator[tuple[bytes, int]]:
        """The fragment in as few even pieces as the limits allow."""
        size, duration_us = len(fragment.data), fragment.duration_us
        count = max(-(-size // self._limits.chunk_bytes), -(-duration_us // self._limits.chunk_us))
        if count <= 1:
            yield fragment.data, duration_us
            return
        if count > size:
            raise InvalidMediaError(f"the video stands still for {duration_us // 1_000_000} seconds")
        view = memoryview(fragment.data)
        for i in range(count):
            begin, end = size * i // count, size * (i + 1) // count
            yield bytes(view[begin:end]), duration_us * (i + 1) // count - duration_us * i // count

    def _fits(self, size_bytes: int, duration_us: int) -> bool:
        return (
            self._chunk_bytes + size_bytes <= self._limits.chunk_bytes
            and self._chunk_us + duration_us <= self._limits.chunk_us
        )

    def _append(self, data: bytes, duration_us: int) -> None:
        self._pieces.append(data)
        self._chunk_bytes += len(data)
        self._chunk_us += duration_us
        self._segment_us += duration_us

    def _close(self, *, last: bool) -> PackedChunk:
        assert self._chunk_bytes > 0
        end_us = self._start_us + self._chunk_us
        chunk = PackedChunk(
            number=self._number,
            data=b"".join(self._pieces),
            duration_ms=_ms(end_us) - _ms(self._start_us),
            segment=self._segment,
            init_size_bytes=self._init_bytes if self._number == 0 else 0,
            last=last,
        )
        self._number += 1
        self._start_us, self._chunk_us = end_us, 0
        self._pieces, self._chunk_bytes = [], 0
        return chunk


def _ms(us: int) -> int:
    return (us + 500) // 1000
