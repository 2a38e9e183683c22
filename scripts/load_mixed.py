#!/usr/bin/env python3
"""Uploads and smart clients together: whether viewers notice that others upload, and all uploads come through.

The same file is uploaded N times at once while viewers play what is stored. The table has both sides; the exit status
is 1 when an upload or a playback failed.

    scripts/load_mixed.py --file video.mp4 --uploads 10 --clients 50 --seconds 60
"""

import argparse
import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
from load_play import (
    WorkerReport,
    active_videos,
    add_player_options,
    kill_later,
    orders_of,
    percentile,
    play_all,
    print_table,
    summary,
    worker_pool,
)

from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.uploader import UploaderClient

FIRST_VIDEO_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How one upload went. `received_s` is until the uploader had the file, `stored_s` until the video was active."""

    video_id: str | None
    error: str | None
    received_s: float
    stored_s: float


async def upload(client: UploaderClient, file: Path, title: str) -> Uploaded:
    """Upload one file and wait until it is stored, or has failed."""
    started = time.monotonic()
    try:
        accepted = await client.upload(file, title)
        received_s = time.monotonic() - started
        status = await client.wait(accepted.upload_session_id)
    except VStackError as error:
        return Uploaded(None, str(error), 0.0, time.monotonic() - started)
    return Uploaded(status.video_id, status.error, received_s, time.monotonic() - started)


async def upload_all(url: str, file: Path, count: int) -> list[Uploaded]:
    """All uploads at once."""
    async with new_session() as session:
        client = UploaderClient(session, url)
        return await asyncio.gather(*(upload(client, file, f"{file.stem} {number}") for number in range(count)))


async def first_videos(options: argparse.Namespace) -> list[str]:
    """What viewers can play: the named videos, else all active ones, as soon as there is one."""
    if options.video:
        return list(options.video)
    async with asyncio.timeout(FIRST_VIDEO_TIMEOUT_S):
        while not (videos := await active_videos(options.metadata)):  # noqa: ASYNC110 - a remote condition
            await asyncio.sleep(0.5)
    return videos


async def play(options: argparse.Namespace) -> list[WorkerReport]:
    videos = await first_videos(options)
    with worker_pool(options.processes) as pool:
        return await play_all(pool, orders_of(options, videos))


def upload_figures(uploads: list[Uploaded], file_bytes: int) -> dict[str, object]:
    """The figures of the uploads, by the names that the JSON has."""
    good = [one for one in uploads if one.error is None]
    stored = sorted(one.stored_s for one in good)
    return {
        "uploads": len(uploads),
        "failed_uploads": len(uploads) - len(good),
        "file_bytes": file_bytes,
        "received_p95_s": percentile(sorted(one.received_s for one in good), 95),
        "stored_p50_s": percentile(stored, 50),
        "stored_p95_s": percentile(stored, 95),
        "stored_mbps": file_bytes * len(good) * 8 / 1e6 / stored[-1] if stored else 0.0,
        "errors": sorted({one.error for one in uploads if one.error is not None}),
    }


async def run(options: argparse.Namespace) -> int:
    async with asyncio.TaskGroup() as group:
        uploading = group.create_task(upload_all(options.uploader, options.file, options.uploads))
        playing = group.create_task(play(options))
        if options.kill_pid:
            group.create_task(kill_later(options.kill_pid, options.kill_after))
    uploads, viewers = uploading.result(), playing.result()
    uploaded = upload_figures(uploads, options.file.stat().st_size)
    played = summary(viewers)
    print_table(uploaded, f"{options.uploads} uploads at once of {options.file.name}")
    print_table(played, f"{options.clients} smart clients at speed {options.speed:g}, started over {options.ramp:g} s")
    if options.json is not None:
        figures = {"uploads": uploaded, "playback": played, "each_upload": [asdict(one) for one in uploads]}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 1 if uploaded["failed_uploads"] or played["failed_clients"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--uploader", default="http://127.0.0.1:8084", metavar="URL")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="the video to upload")
    parser.add_argument("--uploads", type=int, default=10, metavar="N")
    add_player_options(parser)
    try:
        return asyncio.run(run(parser.parse_args()))
    except* VStackError as group:
        for error in group.exceptions:
            print(f"load_mixed: {error}", file=sys.stderr)
    except* TimeoutError:
        print("load_mixed: no video became active", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
