"""Whether a file is a video we can store, and what is in it: ffprobe's answer made into a `MediaInfo`.

A file is refused here, before anything else is done for it, with a sentence that says why.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from vstack.errors import InvalidMediaError
from vstack.units import KIB, MIB
from vstack.uploader.media.completeness import refuse_cut_off
from vstack.uploader.media.model import MediaInfo, Stream, StreamKind
from vstack.uploader.sandbox import running

PROBE_TIMEOUT_S: Final = 60.0
EXAMINED_PACKETS: Final = 2000
"""The start of each stream is looked for among so many packets: 20 s of ordinary video with sound."""

MAX_STREAMS: Final = 32
_MAX_REPORT_BYTES: Final = 4 * MIB
_UNREADABLE: Final = "the file is not a readable MP4, MOV, MKV, WebM, AVI or FLV video"
_ENTRIES: Final = (
    "format=format_name,duration"
    ":stream=index,codec_type,codec_name,has_b_frames,width,height"
    ":stream_disposition=attached_pic,timed_thumbnails"
    ":packet=stream_index,pts_time,dts_time"
)
_REPORT_ARGS: Final = ("-show_entries", _ENTRIES, "-read_intervals", f"%+#{EXAMINED_PACKETS}", "-of", "json")


class _Format(msgspec.Struct):
    format_name: str
    duration: str = "0"


class _Stream(msgspec.Struct):
    index: int
    codec_type: str = ""
    codec_name: str = ""
    has_b_frames: int = 0
    width: int = 0
    height: int = 0
    disposition: dict[str, int] = {}


class _Packet(msgspec.Struct):
    stream_index: int
    pts_time: str | None = None
    dts_time: str | None = None


class _Report(msgspec.Struct):
    format: _Format
    streams: list[_Stream] = []
    packets: list[_Packet] = []


async def probe(path: Path, *, ffprobe: str, media_socket: str = "", timeout_s: float = PROBE_TIMEOUT_S) -> MediaInfo:
    """What the file at `path` holds. InvalidMediaError where it is no video that can be stored; UnavailableError
    where ffprobe cannot be run, or is ended by somebody else.

    ffprobe is run by the unit behind `media_socket`, or where that is empty by a child process.
    """
    report = await _report(path, running.Tool("ffprobe", ffprobe, media_socket), timeout_s)
    await asyncio.to_thread(refuse_cut_off, path, report.format.format_name)
    return _media_info(report)


async def _report(path: Path, ffprobe: running.Tool, timeout_s: float) -> _Report:
    async with running.run(ffprobe, _REPORT_ARGS, source=path, timeout_s=timeout_s) as child:
        output = bytearray()
        while data := await child.read(64 * KIB):
            output += data
            if len(output) > _MAX_REPORT_BYTES:
                raise InvalidMediaError("the file describes itself at too great a length")
        status = await child.exit_status()
    if status != 0:
        raise running.verdict(_UNREADABLE, child, status)
    try:
        return msgspec.json.decode(output, type=_Report)
    except msgspec.DecodeError as error:
        raise InvalidMediaError(_UNREADABLE) from error


def _media_info(report: _Report) -> MediaInfo:
    starts = _starts(report.packets)
    read_to_end = len(report.packets) < EXAMINED_PACKETS
    kept = [
        _stream(stream, starts.get(stream.index))
        for stream in report.streams
        if _is_kept(stream) and not (read_to_end and stream.index not in starts)
    ]
    if not any(stream.kind is StreamKind.VIDEO for stream in kept):
        raise InvalidMediaError("the file has no video stream")
    if len(kept) > MAX_STREAMS:
        raise InvalidMediaError(f"the file has {len(kept)} streams, more than {MAX_STREAMS}")
    return MediaInfo(_seconds(report.format.duration) or 0.0, tuple(kept), report.format.format_name)


def _is_kept(stream: _Stream) -> bool:
    if stream.codec_type == StreamKind.VIDEO:
        return not any(stream.disposition.values())
    return stream.codec_type == StreamKind.AUDIO


def _stream(stream: _Stream, start_s: float | None) -> Stream:
    kind = StreamKind(stream.codec_type)
    if not stream.codec_name or stream.codec_name == "none":
        raise InvalidMediaError(f"the {kind} stream {stream.index} has an unknown codec")
    if kind is StreamKind.VIDEO and (stream.width <= 0 or stream.height <= 0):
        raise InvalidMediaError(f"the video stream {stream.index} has no picture size")
    return Stream(
        index=stream.index,
        kind=kind,
        codec=stream.codec_name,
        start_s=start_s,
        reorders=stream.has_b_frames > 0,
        width=stream.width,
        height=stream.height,
    )


def _starts(packets: list[_Packet]) -> dict[int, float]:
    """When the first packet of each stream is shown; AVI knows decoding times only."""
    starts: dict[int, float] = {}
    for packet in packets:
        start_s = _seconds(packet.pts_time)
        if start_s is None:
            start_s = _seconds(packet.dts_time)
        if start_s is not None:
            starts.setdefault(packet.stream_index, start_s)
    return starts


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
