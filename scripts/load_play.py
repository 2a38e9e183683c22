#!/usr/bin/env python3
"""Many smart clients at once: N viewers play videos in real time, and a table says how it went for them.

Every byte is verified as in any playback. With --kill-pid one process (a storage node, say) gets SIGKILL on the way.
The exit status is 1 when a playback failed.

    scripts/load_play.py --clients 100 --seconds 60 --kill-pid "$PID" --kill-after 20
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from vstack.client import SmartClient
from vstack.client.session import PlaybackSession
from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.service import logs

CONNECTIONS_PER_HOST: Final = 1024
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Viewer:
    """One client to be: what it plays, and how long after the start of the run it begins."""

    video_id: str
    begin_after_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """What one worker process does."""

    metadata_urls: tuple[str, ...]
    viewers: tuple[Viewer, ...]
    seconds: float | None
    speed: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went for one client. `startup_s` is None where playback never started."""

    video_id: str
    error: str | None
    completed: bool
    startup_s: float | None
    played_s: float
    stalls: int
    stall_s: float
    failovers: int
    hedges: int
    verified_bytes: int
    downloads: int
    failed_downloads: dict[str, int]
    nodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """All outcomes of one worker, and what it cost."""

    outcomes: tuple[Outcome, ...]
    cpu_s: float
    wall_s: float
    max_rss_bytes: int


def work(order: Order) -> WorkerReport:
    """Run one worker's viewers in this process."""
    logs.configure("load", "error")
    started = time.monotonic()
    outcomes = uvloop.run(_watch_all(order))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return WorkerReport(
        outcomes=tuple(outcomes),
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.monotonic() - started,
        max_rss_bytes=usage.ru_maxrss * 1024,
    )


async def _watch_all(order: Order) -> list[Outcome]:
    async with new_session(per_host=CONNECTIONS_PER_HOST) as session, asyncio.TaskGroup() as viewers:
        tasks = [
            viewers.create_task(watch(SmartClient(order.metadata_urls, session=session), viewer, order))
            for viewer in order.viewers
        ]
    return [task.result() for task in tasks]


async def watch(
    client: SmartClient, viewer: Viewer, order: Order, limits: list[asyncio.Timeout] | None = None
) -> Outcome:
    """One playback, from its start to its end or to the end of its time, which `limits` lets others bring forward."""
    await asyncio.sleep(viewer.begin_after_s)
    async with client:
        try:
            playback = await client.prepare(viewer.video_id, speed=order.speed)
        except VStackError as error:
            return Outcome(viewer.video_id, str(error), False, None, 0, 0, 0, 0, 0, 0, 0, {})
        error_text: str | None = None
        completed = False
        try:
            async with asyncio.timeout(order.seconds) as limit:
                if limits is not None:
                    limits.append(limit)
                await playback.run()
            completed = True
        except TimeoutError:
            pass  # watched long enough
        except VStackError as error:
            error_text = str(error)
        return _outcome(playback, error_text, completed=completed)


def _outcome(playback: PlaybackSession, error: str | None, *, completed: bool) -> Outcome:
    figures = playback.figures()
    return Outcome(
        video_id=figures.video_id,
        error=error,
        completed=completed,
        startup_s=figures.startup_s,
        played_s=figures.buffer.playhead_s,
        stalls=figures.buffer.stalls,
        stall_s=figures.buffer.stall_s,
        failovers=figures.failovers,
        hedges=figures.hedges,
        verified_bytes=figures.downloaded_bytes,
        downloads=figures.successful,
        failed_downloads={str(reason): count for reason, count in figures.failures.items()},
        nodes=figures.downloads,
    )


def summary(reports: Sequence[WorkerReport]) -> dict[str, object]:
    """The figures of a run, by the names that the JSON has."""
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    startups = sorted(outcome.startup_s for outcome in outcomes if outcome.startup_s is not None)
    wall_s = max(report.wall_s for report in reports)
    verified_bytes = sum(outcome.verified_bytes for outcome in outcomes)
    failed_downloads: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for outcome in outcomes:
        failed_downloads.update(outcome.failed_downloads)
        nodes.update(outcome.nodes)
    return {
        "clients": len(outcomes),
        "failed_clients": sum(outcome.error is not None for outcome in outcomes),
        "completed_clients": sum(outcome.completed for outcome in outcomes),
        "never_started_clients": sum(outcome.startup_s is None for outcome in outcomes),
        "startup_p50_s": percentile(startups, 50),
        "startup_p95_s": percentile(startups, 95),
        "startup_p99_s": percentile(startups, 99),
        "stalls": sum(outcome.stalls for outcome in outcomes),
        "stall_s": sum(outcome.stall_s for outcome in outcomes),
        "failovers": sum(outcome.failovers for outcome in outcomes),
        "hedges": sum(outcome.hedges for outcome in outcomes),
        "downloads": sum(outcome.downloads for outcome in outcomes),
        "failed_downloads": dict(failed_downloads),
        "downloads_by_node": dict(sorted(nodes.items())),
        "verified_bytes": verified_bytes,
        "throughput_mbps": verified_bytes * 8 / 1e6 / wall_s,
        "wall_s": wall_s,
        "client_cpu_s": sum(report.cpu_s for report in reports),
        "client_cores": sum(report.cpu_s for report in reports) / wall_s,
        "client_max_rss_bytes": max(report.max_rss_bytes for report in reports),
        "errors": sorted({outcome.error for outcome in outcomes if outcome.error is not None}),
    }


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Of sorted values; None where there are none."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def print_table(figures: dict[str, object], title: str) -> None:
    print(title)
    for name, value in figures.items():
        text = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        print(f"  {name.replace('_', ' '):26}{text}")


async def active_videos(metadata_urls: Sequence[str]) -> list[str]:
    """The ids of all videos that can be played."""
    async with new_session() as session:
        videos = await MetadataClient(session, metadata_urls).videos(limit=PAGE)
    return [video.video_id for video in videos if video.status == "active"]


def viewers_of(videos: Sequence[str], count: int, ramp_s: float) -> list[Viewer]:
    """`count` viewers spread evenly over the videos, and over the ramp."""
    return [Viewer(videos[number % len(videos)], ramp_s * number / count) for number in range(count)]


async def kill_later(pid: int, after_s: float) -> None:
    """SIGKILL one process, so that it can neither finish nor say goodbye."""
    await asyncio.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    print(f"killed process {pid} after {after_s:g} s", file=sys.stderr)


async def play_all(pool: ProcessPoolExecutor, orders: Sequence[Order]) -> list[WorkerReport]:
    """Every worker's report, when all are done."""
    futures: list[Future[WorkerReport]] = [pool.submit(work, order) for order in orders]
    return await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))


def worker_pool(processes: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a fork would inherit the loop that is running here."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def orders_of(options: argparse.Namespace, videos: Sequence[str]) -> list[Order]:
    """The viewers, dealt out to the worker processes."""
    viewers = viewers_of(videos, options.clients, options.ramp)
    return [
        Order(tuple(options.metadata), tuple(viewers[number :: options.processes]), options.seconds, options.speed)
        for number in range(options.processes)
    ]


def add_player_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metadata", nargs="+", default=["http://127.0.0.1:8080"], metavar="URL")
    parser.add_argument("--video", nargs="+", default=[], metavar="ID", help="default: every active video, in turn")
    parser.add_argument("--clients", type=int, default=100, metavar="N")
    parser.add_argument("--ramp", type=float, default=5.0, metavar="S", help="starts spread over S seconds; 0: at once")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="stop each client after S seconds (default: at the end)"
    )
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="1 is real time, 0 as fast as possible")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="worker processes that share the clients")
    parser.add_argument("--kill-pid", type=int, metavar="PID", help="SIGKILL this process on the way")
    parser.add_argument("--kill-after", type=float, default=10.0, metavar="S")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and every client's outcome there")


async def run(options: argparse.Namespace) -> int:
    videos = options.video or await active_videos(options.metadata)
    if not videos:
        print("there is no active video to play", file=sys.stderr)
        return 1
    killer = asyncio.create_task(kill_later(options.kill_pid, options.kill_after)) if options.kill_pid else None
    with worker_pool(options.processes) as pool:
        reports = await play_all(pool, orders_of(options, videos))
    if killer is not None:
        await killer
    figures = summary(reports)
    print_table(figures, f"{options.clients} smart clients at speed {options.speed:g}, started over {options.ramp:g} s")
    if options.json is not None:
        clients = [asdict(outcome) for report in reports for outcome in report.outcomes]
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({"figures": figures, "clients": clients})))
    return 1 if figures["failed_clients"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add_player_options(parser)
    try:
        return asyncio.run(run(parser.parse_args()))
    except VStackError as error:
        print(f"load_play: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
