"""What the uploader knows of a video file and what it will do with it. Plain values, shared by probing and planning."""

from dataclasses import dataclass, field
from enum import StrEnum


class StreamKind(StrEnum):
    """Only these two are ever kept; subtitles, data and attached pictures are dropped."""

    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Stream:
    """One elementary stream that will be kept.

    `index` is the stream's number in the file. `start_s` is when its first packet is shown, None where the stream had
    none among the packets examined. `reorders` says that frames are stored out of display order.
    """

    index: int
    kind: StreamKind
    codec: str
    start_s: float | None = 0.0
    reorders: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What ffprobe found; `container` is its name for the format. `duration_s` is 0.0 where the file does not say."""

    duration_s: float
    streams: tuple[Stream, ...]
    container: str


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """`target` is the codec the stream is converted to, None where its packets are copied bit for bit."""

    stream: Stream
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the file becomes fragmented MP4: per stream copy or transcode, and ffmpeg's output arguments in order."""

    streams: tuple[StreamPlan, ...]
    duration_s: float
    output_args: tuple[str, ...] = field(repr=False)

    @property
    def lossless(self) -> bool:
        """Whether every kept stream is copied bit for bit."""
        return all(item.target is None for item in self.streams)
