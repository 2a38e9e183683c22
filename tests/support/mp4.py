"""Builds small MP4 structures byte by byte, so that the reader is tested against the standard, not itself."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

NON_SYNC = 0x10000
SYNC = 0


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def large_box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body


def full(kind: bytes, body: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), body)


@dataclass(frozen=True)
class TrackSpec:
    """A track as `init_segment` writes it. `edits` are (duration in movie timescale, media time or -1)."""

    track_id: int = 1
    timescale: int = 1000
    handler: bytes = b"vide"
    entry: bytes = b"avc1"
    edits: tuple[tuple[int, int], ...] = ()
    default_duration: int = 0
    default_flags: int = NON_SYNC


def init_segment(*tracks: TrackSpec) -> bytes:
    mvhd = full(b"mvhd", struct.pack(">III", 0, 0, 1000) + bytes(84))
    trex = [
        full(b"trex", struct.pack(">5I", track.track_id, 1, track.default_duration, 0, track.default_flags))
        for track in tracks
    ]
    moov = box(b"moov", mvhd, *map(_trak, tracks), box(b"mvex", *trex))
    return box(b"ftyp", b"iso5", bytes(4), b"iso6") + moov


def _trak(track: TrackSpec) -> bytes:
    tkhd = full(b"tkhd", struct.pack(">III", 0, 0, track.track_id) + bytes(72), flags=3)
    edits = b"".join(struct.pack(">Iihh", duration, media_time, 1, 0) for duration, media_time in track.edits)
    edts = box(b"edts", full(b"elst", struct.pack(">I", len(track.edits)) + edits)) if track.edits else b""
    mdhd = full(b"mdhd", struct.pack(">IIIII", 0, 0, track.timescale, 0, 0))
    hdlr = full(b"hdlr", bytes(4) + track.handler + bytes(13))
    config = {
        b"avc1": box(b"avcC", bytes([1, 100, 0, 30, 0xFF])),
        b"hvc1": box(b"hvcC", bytes(21) + b"\xff"),
        b"vp09": box(b"vpcC", bytes(8)),
        b"mp4a": b"",
    }[track.entry]
    entry = box(track.entry, bytes(78 if track.handler == b"vide" else 28), config)
    stbl = box(b"stbl", full(b"stsd", struct.pack(">I", 1) + entry))
    return box(b"trak", tkhd, edts, box(b"mdia", mdhd, hdlr, box(b"minf", stbl)))


@dataclass(frozen=True)
class Sample:
    data: bytes
    duration: int = 40
    flags: int = NON_SYNC
    composition: int = 0


def fragment(
    samples: Sequence[Sample], *, track_id: int = 1, decode_time: int = 0, sequence: int = 1, version: int = 1
) -> bytes:
    """A moof and its mdat for one track."""
    return fragment_of({track_id: (decode_time, samples)}, sequence=sequence, version=version)


def fragment_of(tracks: dict[int, tuple[int, Sequence[Sample]]], *, sequence: int = 1, version: int = 1) -> bytes:
    size = len(_moof(tracks, sequence, version, 0))
    payload = b"".join(sample.data for _, samples in tracks.values() for sample in samples)
    return _moof(tracks, sequence, version, size + 8) + box(b"mdat", payload)


def _moof(tracks: dict[int, tuple[int, Sequence[Sample]]], sequence: int, version: int, at: int) -> bytes:
    trafs = []
    for track_id, (decode_time, samples) in tracks.items():
        tfhd = full(b"tfhd", struct.pack(">I", track_id), flags=0x20000)
        tfdt = full(b"tfdt", struct.pack(">Q", decode_time), version=1)
        rows = b"".join(
            struct.pack(">IIIi", sample.duration, len(sample.data), sample.flags, sample.composition)
            for sample in samples
        )
        trun = full(b"trun", struct.pack(">Ii", len(samples), at) + rows, version=version, flags=0xF01)
        trafs.append(box(b"traf", tfhd, tfdt, trun))
        at += sum(len(sample.data) for sample in samples)
    return box(b"moof", full(b"mfhd", struct.pack(">I", sequence)), *trafs)


def h264(*nal_types: int, size: int = 20) -> bytes:
    """A length-prefixed access unit of NAL units of these types."""
    return b"".join(struct.pack(">I", size) + bytes([0x60 | kind]) + bytes(size - 1) for kind in nal_types)


def hevc(*nal_types: int, size: int = 20) -> bytes:
    return b"".join(struct.pack(">I", size) + bytes([kind << 1]) + bytes(size - 1) for kind in nal_types)
