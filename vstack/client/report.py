"""What a playback has to tell: live figures while it runs, and the report at its end."""

from dataclasses import dataclass

from vstack.core.playback.buffer import BufferState
from vstack.core.playback.scoring import Failure


@dataclass(frozen=True, slots=True)
class Figures:
    """A playback at one moment. `startup_s` is None until it starts; `busy_s` is the time with downloads in flight.

    `downloads` counts finished and verified downloads by node URL.
    """

    video_id: str
    title: str
    playing: bool
    startup_s: float | None
    buffer: BufferState
    size_bytes: int
    downloaded_bytes: int
    busy_s: float
    downloads: dict[str, int]
    failures: dict[Failure, int]
    dropped: int
    failovers: int
    hedges: int

    @property
    def successful(self) -> int:
        return sum(self.downloads.values())

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def success_rate(self) -> float:
        total = self.successful + self.failed
        return self.successful / total if total else 1.0

    @property
    def throughput_mbps(self) -> float:
        """Mean speed while something was being downloaded."""
        return self.downloaded_bytes * 8 / 1e6 / self.busy_s if self.busy_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PlaybackReport:
    """A finished playback: every byte was verified, handed out once and in order.

    `size_bytes` and `sha256` (hex) are of the whole stream. `startup_s` is from the call to the first picture,
    `stall_s` what the viewer waited after it. `downloads` counts verified downloads by node, `failed_downloads`
    failures by reason.
    """

    video_id: str
    title: str
    chunks: int
    size_bytes: int
    sha256: str
    startup_s: float
    elapsed_s: float
    played_s: float
    stalls: int
    stall_s: float
    average_buffer_s: float
    failovers: int
    hedges: int
    downloads: dict[str, int]
    failed_downloads: dict[str, int]
    throughput_mbps: float
