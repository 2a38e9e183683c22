"""The smart client's HTTP API: what a player reports about itself."""

from typing import Annotated, Final, Literal

import msgspec

from vstack.ids import Identifier
from vstack.wire.common import Message

MAX_SPEED: Final = 100.0
"""Multiples of real time that a playback may be asked for."""

BufferHealth = Literal["idle", "filling", "healthy", "low", "empty", "finished"]


class BufferStatus(Message, frozen=True, kw_only=True):
    state: BufferHealth
    buffer_level_sec: float
    target_buffer_sec: float
    buffer_health_percent: float
    current_position: int


class BufferStats(Message, frozen=True, kw_only=True):
    total_chunks_played: int
    rebuffering_events: int
    average_buffer_level: float
    stall_time_sec: float = 0


class SchedulerStats(Message, frozen=True, kw_only=True):
    total_downloads: int
    success_rate: float
    failover_count: int
    hedged_requests: int = 0


class NodeStats(Message, frozen=True, kw_only=True):
    latency_ms: float
    bandwidth_mbps: float
    success_rate: float


class Status(Message, frozen=True, kw_only=True):
    """What plays now, or played last; `error` says why the last playback failed."""

    video_id: str | None
    playing: bool
    startup_latency: float | None
    playback_duration: float
    buffer: BufferStatus
    buffer_stats: BufferStats
    scheduler_stats: SchedulerStats
    network_stats: dict[str, NodeStats]
    node_scores: dict[str, float]
    error: str | None = None


class SessionStats(Message, frozen=True, kw_only=True):
    video_id: str | None
    startup_latency: float | None
    playback_duration: float
    total_chunks_played: int


class BufferFigures(Message, frozen=True, kw_only=True):
    current_level_sec: float
    target_sec: float
    health_percent: float
    rebuffering_events: int
    stall_time_sec: float = 0


class DownloadFigures(Message, frozen=True, kw_only=True):
    total: int
    successful: int
    failed: int
    success_rate: float
    failovers: int


class NodeFigures(Message, frozen=True, kw_only=True):
    score: float
    downloads: int
    latency_ms: float
    bandwidth_mbps: float
    success_rate: float


class Stats(Message, frozen=True, kw_only=True):
    session: SessionStats
    buffer: BufferFigures
    downloads: DownloadFigures
    nodes: dict[str, NodeFigures]


class LevelSample(Message, frozen=True, kw_only=True):
    timestamp: float
    level: float


class ThroughputSample(Message, frozen=True, kw_only=True):
    timestamp: float
    mbps: float


class ScoreSample(Message, frozen=True, kw_only=True):
    timestamp: float
    score: float


class History(Message, frozen=True, kw_only=True):
    buffer_history: tuple[LevelSample, ...]
    throughput_history: tuple[ThroughputSample, ...]
    node_score_history: dict[str, tuple[ScoreSample, ...]]


class Performance(Message, frozen=True, kw_only=True):
    startup_latency_sec: float | None
    average_throughput_mbps: float
    rebuffering_events: int
    average_buffer_level_sec: float
    playback_duration_sec: float
    chunks_played: int
    download_success_rate: float


class PlayRequest(Message, frozen=True, kw_only=True):
    """Start playing a video on this client; `speed` 0 is as fast as possible."""

    video_id: Identifier
    speed: Annotated[float, msgspec.Meta(ge=0, le=MAX_SPEED)] = 1.0


class Health(Message, frozen=True, kw_only=True):
    status: Literal["healthy"]
    service: str
    playing: bool
