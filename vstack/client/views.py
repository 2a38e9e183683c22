"""A playback's figures in the form of the client's HTTP API. `figures` is None before anything was played."""

from vstack.client.report import Figures
from vstack.core.playback.buffer import BufferRules, BufferState, Phase
from vstack.core.playback.scoring import NodeTable
from vstack.wire import client as wire


def status(figures: Figures | None, nodes: NodeTable, rules: BufferRules, *, error: str | None) -> wire.Status:
    """The body of /api/status."""
    buffer = figures.buffer if figures else _empty(rules)
    return wire.Status(
        video_id=figures.video_id if figures else None,
        playing=figures is not None and figures.playing,
        startup_latency=figures.startup_s if figures else None,
        playback_duration=buffer.playhead_s,
        buffer=wire.BufferStatus(
            state=_health(figures),
            buffer_level_sec=buffer.level_s,
            target_buffer_sec=rules.target_s,
            buffer_health_percent=_health_percent(buffer),
            current_position=buffer.position,
        ),
        buffer_stats=wire.BufferStats(
            total_chunks_played=buffer.position,
            rebuffering_events=buffer.stalls,
            average_buffer_level=buffer.average_level_s,
            stall_time_sec=buffer.stall_s,
        ),
        scheduler_stats=wire.SchedulerStats(
            total_downloads=figures.successful + figures.failed if figures else 0,
            success_rate=figures.success_rate if figures else 1.0,
            failover_count=figures.failovers if figures else 0,
            hedged_requests=figures.hedges if figures else 0,
        ),
        network_stats={
            node: wire.NodeStats(
                latency_ms=record.latency_ms, bandwidth_mbps=record.bandwidth_mbps, success_rate=record.success_rate
            )
            for node, record in nodes.items()
        },
        node_scores=scores(nodes),
        error=error,
    )


def stats(figures: Figures | None, nodes: NodeTable, rules: BufferRules) -> wire.Stats:
    """The body of /api/stats."""
    buffer = figures.buffer if figures else _empty(rules)
    downloads = figures.downloads if figures else {}
    return wire.Stats(
        session=wire.SessionStats(
            video_id=figures.video_id if figures else None,
            startup_latency=figures.startup_s if figures else None,
            playback_duration=buffer.playhead_s,
            total_chunks_played=buffer.position,
        ),
        buffer=wire.BufferFigures(
            current_level_sec=buffer.level_s,
            target_sec=rules.target_s,
            health_percent=_health_percent(buffer),
            rebuffering_events=buffer.stalls,
            stall_time_sec=buffer.stall_s,
        ),
        downloads=wire.DownloadFigures(
            total=figures.successful + figures.failed if figures else 0,
            successful=figures.successful if figures else 0,
            failed=figures.failed if figures else 0,
            success_rate=figures.success_rate if figures else 1.0,
            failovers=figures.failovers if figures else 0,
        ),
        nodes={
            node: wire.NodeFigures(
                score=record.score,
                downloads=downloads.get(node, 0),
                latency_ms=record.latency_ms,
                bandwidth_mbps=record.bandwidth_mbps,
                success_rate=record.success_rate,
            )
            for node, record in nodes.items()
        },
    )


def performance(figures: Figures | None, rules: BufferRules) -> wire.Performance:
    """The body of /api/performance."""
    buffer = figures.buffer if figures else _empty(rules)
    return wire.Performance(
        startup_latency_sec=figures.startup_s if figures else None,
        average_throughput_mbps=figures.throughput_mbps if figures else 0.0,
        rebuffering_events=buffer.stalls,
        average_buffer_level_sec=buffer.average_level_s,
        playback_duration_sec=buffer.playhead_s,
        chunks_played=buffer.position,
        download_success_rate=figures.success_rate if figures else 1.0,
    )


def scores(nodes: NodeTable) -> dict[str, float]:
    """Every known node's score."""
    return {node: record.score for node, record in nodes.items()}


def _empty(rules: BufferRules) -> BufferState:
    return BufferState(ends_s=(), speed=1.0, now_s=0.0, rules=rules)


def _health_percent(buffer: BufferState) -> float:
    return min(100.0, 100.0 * buffer.level_s / buffer.rules.target_s)


def _health(figures: Figures | None) -> wire.BufferHealth:
    if figures is None:
        return "idle"
    buffer = figures.buffer
    match buffer.phase:
        case Phase.ENDED:
            return "finished"
        case _ if not figures.playing:
            return "idle"
        case Phase.FILLING:
            return "filling"
        case Phase.STALLED:
            return "empty"
        case Phase.PLAYING:
            enough = buffer.complete or buffer.speed == 0 or buffer.level_s >= buffer.rules.low_water_s
            return "healthy" if enough else "low"
