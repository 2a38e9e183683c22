"""What the init segment (`moov`) says of each track: enough to time fragments and to find random-access points.

Reads tkhd, mdhd, hdlr, elst, stsd (avcC, hvcC) and trex; ISO/IEC 14496-12 chapter 8 and 14496-15. Every field is taken
with a bounds check: a short box is an InvalidMediaError, never another exception.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from vstack.core.fmp4.boxes import Box, children
from vstack.errors import InvalidMediaError

MAX_TRACKS: Final = 64
_VISUAL_SAMPLE_ENTRY_BYTES: Final = 78
_SAMPLE_TABLE_PATH: Final = (b"mdia", b"minf", b"stbl", b"stsd")
_NORMAL_RATE: Final = 1


class Codec(Enum):
    """How the random-access points of a track are told from its bytes; OTHER trusts the container's sync flag."""

    H264 = auto()
    HEVC = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class SampleDefaults:
    """The trex of a track: what a fragment leaves out."""

    duration: int = 0
    size_bytes: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Track:
    """`offset_us` is added to media time to get presentation time (edit list); `nal_length_bytes` is 0 without NALs."""

    track_id: int
    timescale: int
    is_video: bool
    codec: Codec = Codec.OTHER
    nal_length_bytes: int = 0
    offset_us: int = 0
    defaults: SampleDefaults = SampleDefaults()


def parse_moov(moov: Box) -> dict[int, Track]:
    """The tracks of an init segment by id, in file order. InvalidMediaError where it is malformed or has none."""
    boxes = list(children(moov.body))
    movie_timescale = _timescale(_only(boxes, b"mvhd"))
    defaults = dict(_trex_entries(boxes))
    tracks: dict[int, Track] = {}
    for trak in (box for box in boxes if box.kind == b"trak"):
        track = _parse_trak(trak, movie_timescale, defaults)
        tracks[track.track_id] = track
        if len(tracks) > MAX_TRACKS:
            raise InvalidMediaError(f"the MP4 has more than {MAX_TRACKS} tracks")
    if not tracks:
        raise InvalidMediaError("the MP4 has no tracks")
    return tracks


def _parse_trak(trak: Box, movie_timescale: int, defaults: dict[int, SampleDefaults]) -> Track:
    boxes = list(children(trak.body))
    tkhd = _only(boxes, b"tkhd").body
    (track_id,) = unpack(">I", tkhd, 20 if _version(tkhd) == 1 else 12)
    media = list(children(_only(boxes, b"mdia").body))
    timescale = _timescale(_only(media, b"mdhd"))
    is_video = bytes(_only(media, b"hdlr").body[8:12]) == b"vide"
    codec, nal_length_bytes = _sample_entry(trak) if is_video else (Codec.OTHER, 0)
    return Track(
        track_id=track_id,
        timescale=timescale,
        is_video=is_video,
        codec=codec,
        nal_length_bytes=nal_length_bytes,
        offset_us=_edit_offset_us(boxes, movie_timescale, timescale),
        defaults=defaults.get(track_id, SampleDefaults()),
    )


def _edit_offset_us(trak_boxes: list[Box], movie_timescale: int, timescale: int) -> int:
    """Empty edits delay a track, the first real edit skips into it; later edits do not move the start."""
    offset_us = 0
    for edts in (box for box in trak_boxes if box.kind == b"edts"):
        for duration, media_time in _edits(_only(list(children(edts.body)), b"elst").body):
            if media_time >= 0:
                return offset_us - media_time * 1_000_000 // timescale
            offset_us += duration * 1_000_000 // movie_timescale
    return offset_us


def _edits(elst: memoryview) -> Iterator[tuple[int, int]]:
    (count,) = unpack(">I", elst, 4)
    entry = ">Qqhh" if _version(elst) == 1 else ">Iihh"
    for i in range(count):
        duration, media_time, rate, _ = unpack(entry, elst, 8 + i * struct.calcsize(entry))
        if rate != _NORMAL_RATE:
            raise InvalidMediaError("the MP4 changes its playing speed by an edit list")
        yield duration, media_time


def _sample_entry(trak: Box) -> tuple[Codec, int]:
    box = trak
    for kind in _SAMPLE_TABLE_PATH:
        box = _only(list(children(box.body)), kind)
    for entry in children(box.body[8:]):
        for config in children(entry.body[_VISUAL_SAMPLE_ENTRY_BYTES:]):
            if config.kind == b"avcC":
                return Codec.H264, (unpack(">B", config.body, 4)[0] & 3) + 1
            if config.kind == b"hvcC":
                return Codec.HEVC, (unpack(">B", config.body, 21)[0] & 3) + 1
    return Codec.OTHER, 0


def _trex_entries(moov_boxes: list[Box]) -> Iterator[tuple[int, SampleDefaults]]:
    for mvex in (box for box in moov_boxes if box.kind == b"mvex"):
        for trex in (box for box in children(mvex.body) if box.kind == b"trex"):
            track_id, _, duration, size, flags = unpack(">5I", trex.body, 4)
            yield track_id, SampleDefaults(duration, size, flags)


def _timescale(header: Box) -> int:
    """The timescale of mvhd or mdhd, which share their head."""
    timescale: int = unpack(">I", header.body, 20 if _version(header.body) == 1 else 12)[0]
    if timescale == 0:
        raise InvalidMediaError("the MP4 has a timescale of zero")
    return timescale


def _version(body: memoryview) -> int:
    version: int = unpack(">B", body, 0)[0]
    return version


def _only(boxes: list[Box], kind: bytes) -> Box:
    for box in boxes:
        if box.kind == kind:
            return box
    raise InvalidMediaError(f"the MP4 has no {kind.decode('ascii')} box")


def unpack(layout: str, body: memoryview, at: int) -> tuple[int, ...]:
    """struct.unpack_from that answers a short box with InvalidMediaError."""
    try:
        return struct.unpack_from(layout, body, at)
    except struct.error as error:
        raise InvalidMediaError("an MP4 box is too short for its fields") from error
