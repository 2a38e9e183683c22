"""Looks at media files from outside, with ffmpeg and ffprobe: hashes of streams, packets, warnings, events in time."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vstack.dev import programs


def _run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *args], check=True, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True)
class Track:
    """What the packets of one stream say; times in seconds."""

    kind: str
    packets: int
    key_frames: int
    start_s: float
    end_s: float


def stream_hashes(path: Path) -> list[str]:
    """One hash per picture and sound stream over its packets, pictures first."""
    args = ["-v", "error", "-i", str(path), "-map", "0:V?", "-map", "0:a?", "-c", "copy"]
    return _run(programs.media().ffmpeg, *args, "-f", "streamhash", "-hash", "md5", "-").stdout.split()


def picture_hashes(path: Path) -> str:
    """A hash over each decoded picture, in order."""
    args = ["-v", "error", "-i", str(path), "-map", "0:V:0", "-fps_mode", "passthrough"]
    report = _run(programs.media().ffmpeg, *args, "-f", "framehash", "-hash", "md5", "-").stdout
    return "\n".join(line.rpartition(",")[2] for line in report.splitlines() if not line.startswith("#"))


def sample_hash(path: Path) -> str:
    """A hash over the decoded sound, in 32 bits."""
    args = ["-v", "error", "-i", str(path), "-map", "0:a:0", "-c:a", "pcm_s32le"]
    return _run(programs.media().ffmpeg, *args, "-f", "hash", "-hash", "md5", "-").stdout.strip()


def warnings(path: Path) -> str:
    """What ffmpeg complains of while it decodes everything from start to end."""
    args = ["-v", "warning", "-xerror", "-probesize", "100M", "-i", str(path), "-map", "0", "-f", "null", "-"]
    command = [programs.media().ffmpeg, *args]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    return result.stderr + (f"exit status {result.returncode}" if result.returncode else "")


def tracks(path: Path) -> list[Track]:
    """The picture and sound tracks, pictures first (attached pictures left out)."""
    entries = "stream=index,codec_type:stream_disposition=attached_pic"
    entries += ":packet=stream_index,pts_time,dts_time,duration_time,flags"
    args = ["-v", "error", "-show_entries", entries, "-of", "json", str(path)]
    report = json.loads(_run(programs.media().ffprobe, *args).stdout)
    found = [_track(stream, report["packets"]) for stream in report["streams"] if _is_shown(stream)]
    return sorted(found, key=lambda track: track.kind != "video")


def frame_times(path: Path) -> list[float]:
    """When each picture is shown, in order."""
    args = ["-v", "error", "-select_streams", "V:0", "-show_entries", "packet=pts_time,dts_time", "-of", "json"]
    packets = json.loads(_run(programs.media().ffprobe, *args, str(path)).stdout)["packets"]
    return sorted(_shown_at(packet) for packet in packets)


def codecs(path: Path) -> list[str]:
    """The codec of every stream, whatever its kind, in file order."""
    args = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", str(path)]
    return _run(programs.media().ffprobe, *args).stdout.split()


def length_s(found: list[Track]) -> float:
    """From the first packet shown to the end of the last."""
    return max(track.end_s for track in found) - min(track.start_s for track in found)


def event_times(path: Path) -> tuple[float, float]:
    """When the picture stops being black, and when the sound stops being silent."""
    filters = ["-vf", "blackdetect=d=0.2:pix_th=0.3", "-af", "silencedetect=n=-30dB:d=0.2"]
    result = _run(programs.media().ffmpeg, "-v", "info", "-i", str(path), *filters, "-f", "null", "-").stderr
    return _after(result, "black_end:"), _after(result, "silence_end: ")


def _shown_at(packet: dict[str, str]) -> float:
    return float(packet.get("pts_time", packet.get("dts_time", "nan")))


def _after(text: str, mark: str) -> float:
    return float(text.split(mark, 1)[1].split(maxsplit=1)[0])


def _is_shown(stream: dict[str, object]) -> bool:
    disposition = stream["disposition"]
    assert isinstance(disposition, dict)
    return stream["codec_type"] in ("video", "audio") and not disposition["attached_pic"]


def _track(stream: dict[str, object], packets: list[dict[str, str]]) -> Track:
    own = [packet for packet in packets if packet["stream_index"] == stream["index"]]
    times = [_shown_at(packet) for packet in own]
    lengths = [float(packet.get("duration_time", 0)) for packet in own]
    return Track(
        kind=str(stream["codec_type"]),
        packets=len(own),
        key_frames=sum("K" in packet["flags"] for packet in own),
        start_s=min(times),
        end_s=max(time + length for time, length in zip(times, lengths, strict=True)),
    )
