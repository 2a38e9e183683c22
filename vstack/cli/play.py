"""`vstack play ID`: plays a video through the smart client and says how it went."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vstack.cli import output
from vstack.cli.parser import metadata_urls
from vstack.client import PlaybackReport, SmartClient
from vstack.client.session import PlaybackSession

REFRESH_S: Final = 0.2


def play(options: argparse.Namespace) -> int:
    """Play to the end; prints the figures of the playback."""
    report = output.run(_play(options))
    if options.json:
        output.print_json(report)
    else:
        output.print_table(("PLAYBACK", ""), figures(report))
    return 0


def figures(report: PlaybackReport) -> list[tuple[str, str]]:
    """The report as rows of a table."""
    nodes = ", ".join(f"{node} {count}" for node, count in sorted(report.downloads.items()))
    return [
        ("title", report.title),
        ("chunks", f"{report.chunks} ({output.size(report.size_bytes)})"),
        ("length", output.duration(report.played_s)),
        ("startup latency", f"{report.startup_s * 1000:.0f} ms"),
        ("stalls", f"{report.stalls} ({report.stall_s:.1f} s)"),
        ("failovers", str(report.failovers)),
        ("hedged requests", str(report.hedges)),
        ("throughput", f"{report.throughput_mbps:.0f} Mbps while downloading"),
        ("downloads by node", nodes),
        ("sha256", report.sha256),
    ]


@contextlib.asynccontextmanager
async def watched(session: PlaybackSession, *, shown: bool = True) -> AsyncIterator[None]:
    """A line on stderr, if that is a terminal, that follows a playback."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        async def refresh() -> None:
            while True:
                live.update(_line(session), refresh=True)
                await asyncio.sleep(REFRESH_S)

        task = asyncio.create_task(refresh())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


def _line(session: PlaybackSession) -> Text:
    now = session.figures()
    state = "waiting" if now.buffer.waiting else "playing"
    return Text(
        f"{state} {output.duration(now.buffer.playhead_s)} of {output.duration(now.buffer.ends_s[-1])}"
        f"  buffer {now.buffer.level_s:.0f} s  {now.throughput_mbps:.0f} Mbps  failovers {now.failovers}"
    )


async def _play(options: argparse.Namespace) -> PlaybackReport:
    async with SmartClient(metadata_urls(options)) as client:
        session = await client.prepare(options.video_id, output=options.output, speed=options.speed)
        async with watched(session, shown=not options.json):
            return await session.run()
