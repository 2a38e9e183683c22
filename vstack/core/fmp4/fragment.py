"""One movie fragment (moof + mdat): how far its tracks reach in time, and whether playback may start at it.

Reads tfhd, tfdt and trun (ISO/IEC 14496-12, 8.8). Counts in a hostile box are checked against the bytes present before
anything of that size is built.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import add
from typing import Final

from vstack.core.fmp4.boxes import Box, children
from vstack.core.fmp4.init_segment import Codec, SampleDefaults, Track, unpack
from vstack.core.fmp4.nal import h264_is_random_access, hevc_is_random_access
from vstack.errors import InvalidMediaError

MAX_SAMPLES_PER_RUN: Final = 1 << 17

_TFHD_BASE_DATA_OFFSET: Final = 0x1
_TFHD_DESCRIPTION: Final = 0x2
_TFHD_DURATION: Final = 0x8
_TFHD_SIZE: Final = 0x10
_TFHD_FLAGS: Final = 0x20
_TRUN_DATA_OFFSET: Final = 0x1
_TRUN_FIRST_FLAGS: Final = 0x4
_TRUN_DURATION: Final = 0x100
_TRUN_SIZE: Final = 0x200
_TRUN_FLAGS: Final = 0x400
_TRUN_COMPOSITION: Final = 0x800
_NON_SYNC: Final = 0x10000


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive samples of one track; `offset_bytes` of the first counts from the start of the moof.

    `first_shown` and `shown_until` are presentation times, counted from the decoding time of the first sample;
    `duration` is decoding time.
    """

    offset_bytes: int
    sizes_bytes: tuple[int, ...]
    duration: int
    first_shown: int
    shown_until: int
    first_flags: int
    first_composition: int


@dataclass(frozen=True, slots=True)
class TrackFragment:
    """The samples of one track in one fragment; `decode_time` of the first in the track's timescale."""

    track: Track
    decode_time: int
    runs: tuple[Run, ...]

    def shown_us(self) -> tuple[int, int]:
        """When its first sample is shown and its last one ends, in microseconds of presentation time."""
        at, starts, ends = self.decode_time, [], []
        for run in self.runs:
            starts.append(at + run.first_shown)
            ends.append(at + run.shown_until)
            at += run.duration
        return self._presentation_us(min(starts)), self._presentation_us(max(ends))

    def samples(self, fragment: memoryview) -> Iterator[memoryview]:
        """The bytes of the samples in decoding order; `fragment` begins at the moof."""
        for run in self.runs:
            starts = accumulate(run.sizes_bytes, initial=run.offset_bytes)
            for start, size in zip(starts, run.sizes_bytes, strict=False):
                if start < 0 or start + size > len(fragment):
                    raise InvalidMediaError("an MP4 sample lies outside its fragment")
                yield fragment[start : start + size]

    def _presentation_us(self, media_time: int) -> int:
        return media_time * 1_000_000 // self.track.timescale + self.track.offset_us


def parse_moof(moof: Box, tracks: dict[int, Track]) -> tuple[TrackFragment, ...]:
    """The track fragments that hold samples. InvalidMediaError where the box is malformed or names unknown tracks."""
    parsed = (_parse_traf(traf, tracks) for traf in children(moof.body) if traf.kind == b"traf")
    return tuple(fragment for fragment in parsed if fragment.runs)


def is_random_access(fragment: TrackFragment, data: memoryview) -> bool:
    """Whether decoding may start at the first sample of this track; `data` begins at the moof."""
    first = fragment.runs[0]
    if first.first_flags & _NON_SYNC:
        return False
    track = fragment.track
    samples = fragment.samples(data)
    if track.codec is Codec.H264:
        return any(h264_is_random_access(sample, track.nal_length_bytes) for sample in islice(samples, 1))
    if track.codec is Codec.HEVC:
        return hevc_is_random_access(samples, track.nal_length_bytes, reordered=first.first_composition > 0)
    return True


def _parse_traf(traf: Box, tracks: dict[int, Track]) -> TrackFragment:
    track: Track | None = None
    defaults = SampleDefaults()
    decode_time = 0
    runs: list[Run] = []
    for box in children(traf.body):
        if box.kind == b"tfhd":
            track, defaults = _parse_tfhd(box.body, tracks)
        elif box.kind == b"tfdt":
            version = unpack(">B", box.body, 0)[0]
            (decode_time,) = unpack(">Q" if version == 1 else ">I", box.body, 4)
        elif box.kind == b"trun":
            run = _parse_trun(box.body, defaults)
            runs += [] if run is None else [run]
    if track is None:
        raise InvalidMediaError("an MP4 track fragment has no header")
    return TrackFragment(track, decode_time, tuple(runs))


def _parse_tfhd(body: memoryview, tracks: dict[int, Track]) -> tuple[Track, SampleDefaults]:
    flags, track_id = unpack(">II", body, 0)
    if flags & _TFHD_BASE_DATA_OFFSET:
        raise InvalidMediaError("an MP4 fragment addresses its samples from the start of the file")
    track = tracks.get(track_id)
    if track is None:
        raise InvalidMediaError(f"an MP4 fragment names the unknown track {track_id}")
    at = 12 if flags & _TFHD_DESCRIPTION else 8
    values = [track.defaults.duration, track.defaults.size_bytes, track.defaults.flags]
    for i, bit in enumerate((_TFHD_DURATION, _TFHD_SIZE, _TFHD_FLAGS)):
        if flags & bit:
            (values[i],) = unpack(">I", body, at)
            at += 4
    return track, SampleDefaults(*values)


def _parse_trun(body: memoryview, defaults: SampleDefaults) -> Run | None:
    head, count = unpack(">II", body, 0)
    if count == 0:
        return None
    if count > MAX_SAMPLES_PER_RUN:
        raise InvalidMediaError(f"an MP4 fragment claims {count} samples")
    at, offset_bytes, first_flags = 8, 0, defaults.flags
    if head & _TRUN_DATA_OFFSET:
        (offset_bytes,) = unpack(">i", body, at)
        at += 4
    if head & _TRUN_FIRST_FLAGS:
        (first_flags,) = unpack(">I", body, at)
        at += 4
    columns = _columns(body, at, count, head)
    durations = columns.get(_TRUN_DURATION, (defaults.duration,) * count)
    compositions = tuple(map(_signed, columns.get(_TRUN_COMPOSITION, (0,) * count)))
    if _TRUN_FLAGS in columns and not head & _TRUN_FIRST_FLAGS:
        first_flags = columns[_TRUN_FLAGS][0]
    shown = list(map(add, accumulate(durations, initial=0), compositions))
    return Run(
        offset_bytes=offset_bytes,
        sizes_bytes=columns.get(_TRUN_SIZE, (defaults.size_bytes,) * count),
        duration=sum(durations),
        first_shown=min(shown),
        shown_until=max(map(add, shown, durations)),
        first_flags=first_flags,
        first_composition=compositions[0],
    )


def _columns(body: memoryview, at: int, count: int, head: int) -> dict[int, tuple[int, ...]]:
    """The table of a run by column; the flags in `head` say which columns there are, always in this order."""
    kinds = [bit for bit in (_TRUN_DURATION, _TRUN_SIZE, _TRUN_FLAGS, _TRUN_COMPOSITION) if head & bit]
    table = unpack(f">{count * len(kinds)}I", body, at)
    return {kind: table[i :: len(kinds)] for i, kind in enumerate(kinds)}


def _signed(word: int) -> int:
    """Version 0 runs hold unsigned offsets, but never above 2^31 in practice; version 1 runs hold signed ones."""
    return word - (1 << 32) if word >= 1 << 31 else word
