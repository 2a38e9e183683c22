"""Named test clips, made on demand with ffmpeg's own test sources: short, small, and one for every case that matters.

`ClipStore(directory).path("mp4")` is the clip "mp4", made at the first call. All pictures move, so that hashes mean
something; all are of a few seconds and encode in a fraction of one.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECONDS = 13
SYNC_EVENT_S = 3.0
"""In the "sync" pictures and sounds: when black turns white and silence turns to sound."""


@dataclass(frozen=True)
class Clip:
    """ffmpeg's arguments between `ffmpeg -y` and the output name; `{name}` stands for the path of another clip."""

    suffix: str
    args: str
    encoders: tuple[str, ...] = ("libx264", "aac")
    """What the ffmpeg at hand must have."""


def _picture(seconds: float = SECONDS, size: str = "320x180", rate: str = "25", extra: str = "") -> str:
    return f"-f lavfi -i testsrc2=size={size}:rate={rate}:duration={seconds}{extra}"


def _sound(seconds: float = SECONDS, rate: int = 48000) -> str:
    return f"-f lavfi -i sine=frequency=440:beep_factor=4:sample_rate={rate}:duration={seconds}"


_BOTH = f"{_picture()} {_sound()}"
_X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
_X264_B = f"{_X264} -bf 2 -g 50"
_AAC = "-c:a aac -b:a 96k"
_SYNC = (
    f"-f lavfi -i color=black:size=320x180:rate=25:duration=6,drawbox=color=white:t=fill:enable=gte(t\\,{SYNC_EVENT_S})"
    f" -f lavfi -i aevalsrc=if(gte(t\\,{SYNC_EVENT_S})\\,sin(880*2*PI*t)\\,0):sample_rate=44100:duration=6"
)


def _constant_rate(kbps: int) -> str:
    return f"-b:v {kbps}k -minrate {kbps}k -maxrate {kbps}k -bufsize {kbps}k -x264-params nal-hrd=cbr"


CLIPS: dict[str, Clip] = {
    # One for every container and codec that is copied.
    "mp4": Clip("mp4", f"{_BOTH} {_X264_B} {_AAC}"),
    "mp4-fragmented": Clip("mp4", "-i {mp4} -c copy -movflags +frag_keyframe+empty_moov"),
    "faststart": Clip("mp4", "-i {mp4} -c copy -movflags +faststart"),
    "mov": Clip("mov", f"{_BOTH} {_X264_B} {_AAC}"),
    "mkv": Clip("mkv", f"{_BOTH} {_X264_B} {_AAC}"),
    "mkv-flac": Clip("mkv", f"{_BOTH} {_X264_B} -c:a flac", ("libx264", "flac")),
    "mkv-opus": Clip("mkv", f"{_BOTH} {_X264_B} -c:a libopus", ("libx264", "libopus")),
    "mkv-ac3": Clip("mkv", f"{_BOTH} {_X264_B} -c:a ac3", ("libx264", "ac3")),
    "mkv-eac3": Clip("mkv", f"{_BOTH} {_X264_B} -c:a eac3", ("libx264", "eac3")),
    "avi": Clip("avi", f"{_BOTH} {_X264} -bf 0 -g 50 {_AAC}"),
    "avi-ac3": Clip("avi", f"{_BOTH} {_X264} -bf 0 -g 50 -c:a ac3", ("libx264", "ac3")),
    "avi-length-prefixed": Clip("avi", "-i {no-b-frames} -c copy"),
    "no-b-frames": Clip("mp4", f"{_BOTH} {_X264} -bf 0 -g 50 {_AAC}"),
    "flv": Clip("flv", f"{_picture()} {_sound(rate=44100)} {_X264_B} {_AAC}"),
    "webm-vp9": Clip(
        "webm",
        f"{_picture(7)} {_sound(7)} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50 -c:a libopus",
        ("libvpx-vp9", "libopus"),
    ),
    "mkv-av1": Clip("mkv", f"{_picture(7)} {_sound(7)} -c:v libsvtav1 -preset 12 -g 50 {_AAC}", ("libsvtav1", "aac")),
    "mp4-av1": Clip("mp4", f"{_picture(7)} {_sound(7)} -c:v libsvtav1 -preset 12 -g 50 {_AAC}", ("libsvtav1", "aac")),
    # Group-of-pictures structures.
    "hevc": Clip(
        "mp4",
        f"{_BOTH} -c:v libx265 -preset ultrafast -x265-params log-level=none:open-gop=0:bframes=3:keyint=50 {_AAC}",
        ("libx265", "aac"),
    ),
    "hevc-open-gop": Clip(
        "mkv",
        f"{_BOTH} -c:v libx265 -preset ultrafast -x265-params log-level=none:open-gop=1:bframes=3:keyint=50 {_AAC}",
        ("libx265", "aac"),
    ),
    "hevc-intra": Clip(
        "mov",
        f"{_BOTH} -c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=1 {_AAC}",
        ("libx265", "aac"),
    ),
    "open-gop": Clip("mp4", f"{_BOTH} {_X264} -bf 3 -b_strategy 0 -g 25 -x264-params open-gop=1:scenecut=0 {_AAC}"),
    "long-gop": Clip("mp4", f"{_picture(40)} {_sound(40)} {_X264} -bf 2 -g 100000 -sc_threshold 0 {_AAC}"),
    "intra": Clip("mov", f"{_BOTH} {_X264} -g 1 {_AAC}"),
    # Rates and sizes.
    "0.5mbps": Clip("mp4", f"{_BOTH} {_X264_B} {_constant_rate(500)} {_AAC}"),
    "5mbps": Clip("mkv", f"{_BOTH} {_X264_B} {_constant_rate(5000)} {_AAC}"),
    "20mbps": Clip(
        "mp4", f"{_picture(9, '1280x720')} {_sound(9)} {_X264} -threads 2 -bf 2 -g 50 {_constant_rate(20000)} {_AAC}"
    ),
    "huge-frames": Clip(
        "mp4", f"{_picture(2, '1920x1080', '2', ',noise=alls=100:allf=t')} {_X264} -crf 1 -g 1", ("libx264",)
    ),
    "many-chunks": Clip("mp4", f"{_picture(10400, '32x32', '1')} {_X264} -g 1", ("libx264",)),
    # Timing.
    "variable-rate": Clip("mkv", f"{_BOTH} -vf select=not(mod(floor(n*n/7)\\,3)) -fps_mode vfr {_X264_B} {_AAC}"),
    "variable-rate-vp8": Clip(
        "mkv",
        f"{_picture(5)} -vf select=not(mod(floor(n*n/7)\\,3)) -fps_mode vfr -c:v libvpx -deadline realtime -cpu-used 8",
        ("libvpx",),
    ),
    "29.97": Clip("mov", f"{_picture(rate='30000/1001')} {_sound(rate=44100)} {_X264_B} {_AAC}"),
    "slideshow": Clip("mp4", f"{_picture(75, rate='1/25')} {_X264}", ("libx264",)),
    "no-audio": Clip("mp4", f"{_picture()} {_X264_B}", ("libx264",)),
    "audio-late-1s": Clip("mkv", "-i {mp4} -itsoffset 1 -i {mp4} -map 0:v -map 1:a -c copy"),
    "audio-late-5s": Clip("mp4", "-i {mp4} -itsoffset 5 -i {mp4} -map 0:v -map 1:a -c copy"),
    "audio-late-5s-ac3": Clip("mkv", "-i {mp4} -itsoffset 5 -i {mkv-ac3} -map 0:v -map 1:a -c copy"),
    "video-late-3s": Clip("mkv", "-itsoffset 3 -i {mp4} -i {mp4} -map 0:v -map 1:a -c copy"),
    "audio-longer": Clip("mp4", f"{_picture(5)} {_sound(12)} {_X264_B} {_AAC}"),
    "audio-shorter": Clip("mp4", f"{_picture(12)} {_sound(5)} {_X264_B} {_AAC}"),
    "hidden-start": Clip("mp4", "-ss 1.3 -i {mp4} -c copy"),
    "starts-at-100s": Clip("mkv", "-itsoffset 100 -i {mp4} -c copy"),
    # Streams beside picture and sound.
    "two-sounds": Clip("mkv", f"{_BOTH} {_sound(rate=44100)} -map 0 -map 1 -map 2 {_X264_B} {_AAC}"),
    "two-pictures": Clip("mp4", f"{_picture()} {_picture(size='160x90')} -map 0 -map 1 {_X264_B}", ("libx264",)),
    "cover-and-timecode": Clip(
        "mp4",
        "-f lavfi -i color=red:size=64x64:d=0.1:r=10 -i {mp4} -map 1 -map 0 -c:v:0 copy -c:a copy -c:v:1 mjpeg"
        " -frames:v:1 1 -disposition:v:1 attached_pic -write_tmcd on -timecode 01:00:00:00"
        " -metadata comment=filmed-at-home",
        ("libx264", "aac", "mjpeg"),
    ),
    "cover-only": Clip(
        "mp4",
        f"{_sound(2)} -f lavfi -i color=red:size=64x64:d=0.1:r=10 -map 0 -map 1 -c:v mjpeg -frames:v 1"
        f" -disposition:v attached_pic {_AAC}",
        ("aac", "mjpeg"),
    ),
    "sound-only": Clip("mp4", f"{_sound(2)} {_AAC}", ("aac",)),
    # What must be converted; picture and sound tell whether they stayed in step.
    "sync-mp4": Clip("mp4", f"{_SYNC} {_X264_B} {_AAC}"),
    "sync-mov-pcm": Clip("mov", f"{_SYNC} {_X264_B} -c:a pcm_s24le", ("libx264", "pcm_s24le")),
    "sync-avi-mpeg4-mp3": Clip("avi", f"{_SYNC} -c:v mpeg4 -bf 2 -c:a libmp3lame", ("mpeg4", "libmp3lame")),
    "sync-avi-msmpeg4": Clip("avi", f"{_SYNC} -c:v msmpeg4 -c:a pcm_s16le", ("msmpeg4", "pcm_s16le")),
    "sync-avi-h264-b": Clip("avi", f"{_SYNC} {_X264_B} -c:a libmp3lame", ("libx264", "libmp3lame")),
    "sync-webm-vp8-vorbis": Clip(
        "webm", f"{_SYNC} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis", ("libvpx", "libvorbis")
    ),
    "sync-flv-flv1-mp3": Clip("flv", f"{_SYNC} -c:v flv -c:a libmp3lame", ("flv", "libmp3lame")),
    "sync-mov-mjpeg": Clip("mov", f"{_SYNC} -vf crop=319:179 -c:v mjpeg -pix_fmt yuvj444p {_AAC}", ("mjpeg", "aac")),
    "sync-mov-prores": Clip("mov", f"{_SYNC} -c:v prores -c:a pcm_s16be", ("prores", "pcm_s16be")),
}


class ClipStore:
    """Makes clips into a directory and keeps them there."""

    def __init__(self, directory: Path, ffmpeg: str | None = None) -> None:
        self._directory = directory
        self._ffmpeg = ffmpeg or shutil.which("ffmpeg") or "ffmpeg"

    def missing_encoders(self, name: str) -> set[str]:
        """Encoders that a clip needs and this ffmpeg has not."""
        return set(CLIPS[name].encoders) - encoders(self._ffmpeg)

    def path(self, name: str) -> Path:
        clip = CLIPS[name]
        target = self._directory / f"{name}.{clip.suffix}"
        if not target.exists():
            unfinished = target.with_name(f"unfinished-{target.name}")
            args = [self._fill(arg) for arg in clip.args.split(" ") if arg]
            command = [self._ffmpeg, "-nostdin", "-v", "error", "-y", *args, str(unfinished)]
            subprocess.run(command, check=True, timeout=120, capture_output=True)
            unfinished.rename(target)
        return target

    def edited(self, name: str, new_name: str, edit: Callable[[bytes], bytes]) -> Path:
        """A file made from the bytes of a clip."""
        target = self._directory / new_name
        target.write_bytes(edit(self.path(name).read_bytes()))
        return target

    def _fill(self, arg: str) -> str:
        return str(self.path(arg[1:-1])) if arg.startswith("{") else arg


@cache
def encoders(ffmpeg: str) -> frozenset[str]:
    """The encoders of an ffmpeg."""
    listing = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], check=True, capture_output=True, text=True)
    return frozenset(line.split()[1] for line in listing.stdout.splitlines() if len(line.split()) > 1)
