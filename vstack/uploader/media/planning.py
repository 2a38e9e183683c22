"""What to do with each stream, and ffmpeg's arguments for it. Pure.

Packets are copied bit for bit wherever MP4 and browsers take the codec; everything else is converted once, here. All
options exist in ffmpeg 5.1 and still mean the same in 8.
"""

from typing import Final

from vstack.uploader.media.model import MediaInfo, Plan, Stream, StreamKind, StreamPlan
from vstack.uploader.sandbox.command import THREADS

COPIED_VIDEO: Final = frozenset({"h264", "hevc", "vp9", "av1"})
COPIED_AUDIO: Final = frozenset({"aac", "opus", "flac", "ac3", "eac3"})
LOSSLESS_AUDIO: Final = frozenset({"alac", "ape", "mlp", "tak", "truehd", "tta", "wavpack"})
"""These and all PCM become FLAC: other packets, the same samples (up to 24 bits)."""

PREROLL_S: Final = 0.5
"""Media that an edit list hides before the start. Players keep a little of it hidden but stall over more."""

LATE_START_S: Final = 2.0
"""A stream that starts later than this would hold back the init segment, and all before it in memory."""

FRAGMENT_BYTES: Final = 1_000_000
FRAGMENT_DURATION_US: Final = 2_000_000

_MOVFLAGS: Final = "+frag_keyframe+empty_moov+default_base_moof+skip_trailer"
_NEEDS_PACKET_FOR_INIT: Final = frozenset({"ac3", "eac3"})
_X264: Final = {
    "-c": "libx264",
    "-preset": "veryfast",
    "-crf": "18",
    "-pix_fmt": "yuv420p",
    "-g": "250",
    "-force_key_frames": "expr:gte(t,n_forced*2)",
    "-x264-params": "open-gop=0",
    # Every frame keeps its own time; some muxer versions would otherwise make the rate constant.
    "-fps_mode": "vfr",
    "-enc_time_base": "-1",
}
_AUDIO_ENCODERS: Final = {
    "flac": {"-c": "flac"},
    "opus": {"-c": "libopus", "-b": "192k"},
    "aac": {"-c": "aac", "-b": "256k"},
}


def plan(info: MediaInfo) -> Plan:
    """How to turn the file into fragmented MP4."""
    streams = tuple(StreamPlan(stream, _target(stream, info.container)) for stream in info.streams)
    return Plan(streams, info.duration_s, (*_stream_args(streams), *_timing_args(streams), *_muxer_args()))


def _target(stream: Stream, container: str) -> str | None:
    if stream.kind is StreamKind.VIDEO:
        # AVI has no presentation times: reordered frames would come out in decoding order.
        untimed = container == "avi" and stream.reorders
        return None if stream.codec in COPIED_VIDEO and not untimed else "h264"
    if stream.codec in COPIED_AUDIO:
        return None
    if stream.codec.startswith("pcm_") or stream.codec in LOSSLESS_AUDIO:
        return "flac"
    return "opus" if stream.codec == "vorbis" else "aac"


def _stream_args(streams: tuple[StreamPlan, ...]) -> list[str]:
    args: list[str] = []
    numbers = {StreamKind.VIDEO: 0, StreamKind.AUDIO: 0}
    for item in streams:
        kind = item.stream.kind
        at = f":{kind[0]}:{numbers[kind]}"
        numbers[kind] += 1
        args += ["-map", f"0:{item.stream.index}"]
        for option, value in _codec_options(item).items():
            args += [option + at, value]
    return args


def _codec_options(item: StreamPlan) -> dict[str, str]:
    stream = item.stream
    if item.target is None:
        # Apple's players take HEVC only under this name.
        return {"-c": "copy", "-tag": "hvc1"} if stream.codec == "hevc" else {"-c": "copy"}
    if stream.kind is StreamKind.AUDIO:
        return _AUDIO_ENCODERS[item.target]
    odd = stream.width % 2 or stream.height % 2
    return _X264 | ({"-filter": "pad=ceil(iw/2)*2:ceil(ih/2)*2"} if odd else {})


def _timing_args(streams: tuple[StreamPlan, ...]) -> list[str]:
    """How the first fragments are timed.

    Ordinarily the muxer waits for the first packet of every stream (delay_moov) and writes edit lists, which keep
    starts exact. With a late stream it writes the init segment at once and puts the starts into the fragments instead,
    all shifted by the same few frames; this needs codecs that are described before their first packet.
    """
    starts = [item.stream.start_s for item in streams]
    known = [start_s for start_s in starts if start_s is not None]
    late = None in starts or max(known) - min(known) > LATE_START_S
    if late and not any(_needs_packet(item) for item in streams):
        return [
            "-use_editlist",
            "0",
            "-avoid_negative_ts",
            "make_non_negative",
            "-movflags",
            f"{_MOVFLAGS}+frag_discont",
        ]
    shift = ["-avoid_negative_ts", "make_zero"] if known and min(known) < -PREROLL_S else []
    return [*shift, "-movflags", f"{_MOVFLAGS}+delay_moov"]


def _needs_packet(item: StreamPlan) -> bool:
    return item.target is None and item.stream.codec in _NEEDS_PACKET_FOR_INIT


def _muxer_args() -> list[str]:
    # Titles and places in the file's metadata are not for everyone who may watch, and could be of any size.
    args = ["-map_metadata:g", "-1", "-map_chapters", "-1", "-write_tmcd", "0"]
    args += ["-threads", str(THREADS), "-strict", "-2"]
    args += ["-frag_size", str(FRAGMENT_BYTES), "-frag_duration", str(FRAGMENT_DURATION_US)]
    return [*args, "-f", "mp4", "pipe:1"]
