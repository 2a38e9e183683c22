"""`scripts/run`: a local cluster, a real video through it, one storage node killed on the way, and the proof.

What it prints is measured in this run. A playback longer than PLAYBACK_S is played faster than real time, and says so.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from vstack.cli import output
from vstack.cli.main import FAILED, INTERRUPTED
from vstack.cli.parser import Parser
from vstack.cli.play import figures, watched
from vstack.cli.upload import store
from vstack.client import PlaybackReport, SmartClient
from vstack.client.session import PlaybackSession
from vstack.dev import programs, proof
from vstack.dev.cluster import Cluster, Options, running
from vstack.dev.foreground import run_until_signal
from vstack.dev.sample import make_sample
from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.service import logs
from vstack.wire.client import MAX_SPEED
from vstack.wire.metadata import Manifest

SAMPLE_S: Final = 60
"""Twice what a player buffers ahead, so that half of it is still to come when the node is killed."""

PLAYBACK_S: Final = 15.0
POLL_S: Final = 0.005

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Killed:
    """The node that was killed, and where the playback stood then."""

    name: str
    at_s: float
    chunks_served: int
    chunks_to_come: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.file is not None and not options.file.is_file():
        parser.error(f"there is no file {options.file}")
    logs.configure("run", "error")
    shown: list[bool] = []
    try:
        ended = run_until_signal(_demonstrate(options, shown))
    except VStackError as error:
        sys.stderr.write(f"vstack: {error}\n")
        return FAILED
    return 0 if ended or shown else INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts/run", description="A real cluster on this machine, and a real video through it.")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a video; without one a sample is made")
    parser.add_argument("--once", action="store_true", help="end with status 0 after the proof")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="everything it writes")
    parser.add_argument("--port-offset", type=int, default=0, metavar="K", help="added to every default port")
    return parser


async def _demonstrate(options: argparse.Namespace, shown: list[bool]) -> None:
    began_s = _now()
    where = Options(data_dir=options.data_dir, port_offset=options.port_offset)
    console.print(f"Starting PostgreSQL, metadata, {where.nodes} storage nodes, uploader and client ...", style="bold")
    async with running(where, _report) as cluster:
        console.print(f"  healthy after {_now() - began_s:.1f} s, data in {where.data_dir}")
        source = options.file or await _sample(where.data_dir)
        await _show(cluster, source, where.data_dir)
        shown.append(True)
        _print_urls(cluster)
        if not options.once:
            await cluster.revive()
            console.print("\nThe cluster stays up until Ctrl-C.")
            await asyncio.Event().wait()


async def _sample(directory: Path) -> Path:
    path = directory / "sample.mp4"
    if not path.exists():
        console.print(f"Making a video of {SAMPLE_S} s ...", style="bold")
        await make_sample(path, ffmpeg=programs.media().ffmpeg, seconds=SAMPLE_S)
    return path


async def _show(cluster: Cluster, source: Path, directory: Path) -> None:
    endpoints = cluster.endpoints
    async with new_session() as http:
        console.print(f"Uploading {source} ...", style="bold")
        began_s = _now()
        stored = await store(http, endpoints.uploader, source, source.stem[:100] or "video")
        console.print(f"  stored as {stored.video_id} in {_now() - began_s:.1f} s")
        manifest = await MetadataClient(http, endpoints.metadata).manifest(stored.video_id)
    played = directory / "played.mp4"
    try:
        report, killed = await _play(cluster, manifest, played)
        console.print("Comparing ...", style="bold")
        await proof.check_chunks(manifest.chunks, played)
        streams = await proof.check_streams(programs.media(), source, played)
    finally:
        played.unlink(missing_ok=True)
    _print_table(manifest, report, killed, streams)


async def _play(cluster: Cluster, manifest: Manifest, played: Path) -> tuple[PlaybackReport, Killed]:
    speed = min(MAX_SPEED, max(1.0, manifest.duration_sec / PLAYBACK_S))
    pace = "in real time" if speed == 1 else f"at {speed:.1f} times real time"
    console.print(f"Playing {manifest.duration_sec:.0f} s of video {pace} ...", style="bold")
    async with SmartClient(cluster.endpoints.metadata) as client:
        session = await client.prepare(manifest.video_id, output=played, speed=speed)
        async with watched(session), _killing(cluster, session) as killing:
            report = await session.run()
            return report, await killing


@asynccontextmanager
async def _killing(cluster: Cluster, session: PlaybackSession) -> AsyncIterator["asyncio.Task[Killed]"]:
    task = asyncio.create_task(_kill_a_serving_node(cluster, session))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _kill_a_serving_node(cluster: Cluster, session: PlaybackSession) -> Killed:
    """SIGKILL the node that has served most when the picture starts to move: requests to it are in flight then."""
    now = session.figures()
    while not session.over and now.buffer.waiting:
        await asyncio.sleep(POLL_S)
        now = session.figures()
    node, served = max(now.downloads.items(), key=lambda item: item[1])
    name = cluster.service_at(node)
    await cluster.kill(name)
    return Killed(name, now.buffer.playhead_s, served, len(now.buffer.ends_s) - now.successful)


def _print_table(manifest: Manifest, report: PlaybackReport, killed: Killed, streams: proof.StreamProof) -> None:
    replicas = sum(len(chunk.replicas) for chunk in manifest.chunks)
    nodes = {replica for chunk in manifest.chunks for replica in chunk.replicas}
    when = f"{killed.at_s:.2f} s into the video, having served {killed.chunks_served} chunks"
    rows = [row for row in figures(report) if row[0] != "sha256"]
    rows[2:2] = [("replicas", f"{replicas} on {len(nodes)} nodes")]
    rows += [
        ("killed with SIGKILL", f"{killed.name} {when}, with {killed.chunks_to_come} still to come"),
        ("bytes", f"identical to the {report.chunks} stored chunks (SHA-256)"),
        ("copied streams", f"{streams.copied}, {'frames' if streams.decoded else 'packets'} identical to the source"),
    ]
    if streams.converted:
        rows.append(("converted streams", f"{streams.converted}, of a codec that MP4 or browsers do not take"))
    console.print()
    output.print_table(("RESULT", ""), rows)


def _print_urls(cluster: Cluster) -> None:
    endpoints = cluster.endpoints
    rows = [("metadata", url) for url in endpoints.metadata]
    rows += [("storage", url) for url in endpoints.storage]
    rows += [("uploader", endpoints.uploader), ("client", endpoints.client)]
    console.print()
    output.print_table(("SERVICE", "URL"), rows)


def _report(sentence: str) -> None:
    console.print(f"  {sentence}", style="yellow")


def _now() -> float:
    return asyncio.get_running_loop().time()


if __name__ == "__main__":
    sys.exit(main())
