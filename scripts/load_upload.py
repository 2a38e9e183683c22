#!/usr/bin/env python3
"""Many uploads at once: N files in parallel through the package's own client, and a table that says how it went.

Every upload is followed until its video is stored, also over a restart of the uploader. With --pid the resident memory
of the uploader process is sampled meanwhile. The exit status is 1 when an upload failed.

    scripts/load_upload.py --uploads 10 --pid "$(cat data/run/uploader.pid)" film.mp4 talk.mkv
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from vstack.cli.output import print_table
from vstack.cli.output import size as size_text
from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.uploader import UploaderClient

CONNECTIONS: Final = 1024
SAMPLE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one upload went. `sent_s` is None where the file was not taken; `stored_s` counts from the start."""

    file: str
    size_bytes: int
    error: str | None
    sent_s: float | None = None
    stored_s: float | None = None
    chunks: int | None = None
    video_id: str | None = None


@dataclass(slots=True)
class Memory:
    """Resident bytes of one process, as sampled."""

    before_bytes: int = 0
    peak_bytes: int = 0


async def send(client: UploaderClient, file: Path, title: str) -> Outcome:
    """Upload one file and wait until it is stored."""
    size_bytes = (await asyncio.to_thread(file.stat)).st_size
    begun_s = time.monotonic()
    sent_s = None
    try:
        accepted = await client.upload(file, title)
        sent_s = time.monotonic() - begun_s
        status = await client.wait(accepted.upload_session_id)
    except VStackError as error:
        return Outcome(str(file), size_bytes, str(error), sent_s)
    stored_s = time.monotonic() - begun_s
    return Outcome(str(file), size_bytes, status.error, sent_s, stored_s, status.total_chunks, status.video_id)


async def send_all(url: str, files: Sequence[Path], count: int) -> list[Outcome]:
    """`count` uploads at once, of the files in turn."""
    async with new_session(per_host=CONNECTIONS) as session, asyncio.TaskGroup() as uploads:
        client = UploaderClient(session, url)
        tasks = [
            uploads.create_task(send(client, file, f"{file.stem} {number}"))
            for number, file in zip(range(1, count + 1), itertools.cycle(files), strict=False)
        ]
    return [task.result() for task in tasks]


async def watch_memory(pid: int, memory: Memory) -> None:
    """Sample until cancelled, or until the process has gone."""
    memory.before_bytes = resident_bytes(pid)
    while (resident := resident_bytes(pid)) > 0:
        memory.peak_bytes = max(memory.peak_bytes, resident)
        await asyncio.sleep(SAMPLE_S)


def resident_bytes(pid: int) -> int:
    """VmRSS of a process; 0 where there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def figures_of(outcomes: Sequence[Outcome], wall_s: float, memory: Memory | None) -> dict[str, object]:
    """The figures of a run, by the names that the JSON has."""
    stored = [outcome for outcome in outcomes if outcome.error is None]
    times_s = sorted(outcome.stored_s for outcome in stored if outcome.stored_s is not None)
    stored_bytes = sum(outcome.size_bytes for outcome in stored)
    figures: dict[str, object] = {
        "uploads": len(outcomes),
        "failed_uploads": len(outcomes) - len(stored),
        "stored_bytes": stored_bytes,
        "chunks": sum(outcome.chunks or 0 for outcome in stored),
        "wall_s": wall_s,
        "throughput_mb_per_s": stored_bytes / 1e6 / wall_s,
        "stored_median_s": statistics.median(times_s) if times_s else None,
        "stored_slowest_s": times_s[-1] if times_s else None,
        "errors": sorted({outcome.error for outcome in outcomes if outcome.error is not None}),
    }
    if memory is not None:
        figures |= {"rss_before_bytes": memory.before_bytes, "rss_peak_bytes": memory.peak_bytes}
    return figures


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    rows = (
        (
            Path(outcome.file).name,
            size_text(outcome.size_bytes),
            seconds(outcome.sent_s),
            seconds(outcome.stored_s),
            str(outcome.chunks or "-"),
            outcome.error or "stored",
        )
        for outcome in outcomes
    )
    print_table(("FILE", " SIZE", " SENT", " STORED", " CHUNKS", "OUTCOME"), rows)


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


async def run(options: argparse.Namespace) -> int:
    memory = Memory() if options.pid is not None else None
    sampler = asyncio.create_task(watch_memory(options.pid, memory)) if memory is not None else None
    begun_s = time.monotonic()
    outcomes = await send_all(options.uploader, options.files, options.uploads or len(options.files))
    figures = figures_of(outcomes, time.monotonic() - begun_s, memory)
    if sampler is not None:
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
    print_outcomes(outcomes)
    print()
    for name, value in figures.items():
        text = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        print(f"  {name.replace('_', ' '):26}{text}")
    if options.json is not None:
        report = {"figures": figures, "uploads": [asdict(outcome) for outcome in outcomes]}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 1 if figures["failed_uploads"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="videos, taken in turn")
    parser.add_argument("--uploader", default="http://127.0.0.1:8084", metavar="URL")
    parser.add_argument("--uploads", type=int, metavar="N", help="how many, all at once (default: one of each file)")
    parser.add_argument("--pid", type=int, metavar="PID", help="the uploader's process: sample its resident memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and every upload's outcome there")
    options = parser.parse_args()
    missing = [str(file) for file in options.files if not file.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    return uvloop.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
