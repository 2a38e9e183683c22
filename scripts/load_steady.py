#!/usr/bin/env python3
"""A steady load for as long as something else is done to the cluster: viewers and uploads that start over and over.

N viewers play what is stored, in real time, beside U uploads; each is followed by another. SIGINT or SIGTERM ends it:
uploads that run are awaited, playbacks are cut. The table has both sides; the exit status is 1 when an upload or a
playback failed. "load is on" on stdout says that a video was there and every viewer has begun.

    scripts/load_steady.py --clients 20 --uploads 3 --file video.mp4 --metadata URL URL --uploader URL
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import signal
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from load_mixed import Uploaded, first_videos, upload, upload_figures
from load_play import Order, Outcome, Viewer, WorkerReport, active_videos, print_table, summary, watch

from vstack.client import SmartClient
from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.uploader import UploaderClient
from vstack.service import logs

PAUSE_AFTER_FAILURE_S: Final = 1.0
RAMP_S: Final = 5.0


class Load:
    """What runs, and how it went so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._order = Order(tuple(options.metadata), (), None, options.speed)
        self._stop = asyncio.Event()
        self._numbers = itertools.count(1)
        self._limits: dict[int, list[asyncio.Timeout]] = {}
        """Of the playback that each viewer watches now."""
        self._videos: list[str] = []
        self.outcomes: list[Outcome] = []
        self.uploads: list[Uploaded] = []

    def stop(self) -> None:
        """Let uploads end, and cut playbacks."""
        self._stop.set()
        now_s = asyncio.get_running_loop().time()
        for limit in itertools.chain.from_iterable(self._limits.values()):
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                limit.reschedule(now_s)

    async def run(self, seconds: float) -> None:
        """Until `stop`, for `seconds` at most."""
        asyncio.get_running_loop().call_later(seconds, self.stop)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.uploads):
                group.create_task(self._upload_over_and_over())
            await first_videos(self._options)
            for number in range(self._options.clients):
                group.create_task(self._watch_over_and_over(number))
            await asyncio.sleep(RAMP_S)
            print("load is on", flush=True)

    async def _upload_over_and_over(self) -> None:
        async with new_session() as session:
            client = UploaderClient(session, self._options.uploader)
            while not self._stop.is_set():
                title = f"{self._options.file.stem} {next(self._numbers)}"
                uploaded = await upload(client, self._options.file, title)
                self.uploads.append(uploaded)
                if uploaded.error is not None:
                    await self._failed(f"upload of {title}", uploaded.error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._options.rest)

    async def _watch_over_and_over(self, viewer: int) -> None:
        begin_after_s = RAMP_S * viewer / self._options.clients
        async with new_session() as session:
            for number in itertools.count(viewer):
                if self._stop.is_set():
                    return
                self._limits[viewer] = []
                client = SmartClient(self._order.metadata_urls, session=session)
                outcome = await self._watch(client, number, begin_after_s, self._limits[viewer])
                begin_after_s = 0.0
                self.outcomes.append(outcome)
                if outcome.error is not None:
                    await self._failed(f"playback of {outcome.video_id}", outcome.error)

    async def _watch(
        self, client: SmartClient, number: int, begin_after_s: float, limits: list[asyncio.Timeout]
    ) -> Outcome:
        with contextlib.suppress(VStackError):  # the viewer chooses from what was listed last
            self._videos = self._options.video or await active_videos(self._options.metadata)
        videos = self._videos
        # One that begins while all others are cut is over at once.
        order = dataclasses.replace(self._order, seconds=0.0) if self._stop.is_set() else self._order
        return await watch(client, Viewer(videos[number % len(videos)], begin_after_s), order, limits)

    async def _failed(self, what: str, error: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what} failed: {error}", file=sys.stderr, flush=True)
        await asyncio.sleep(PAUSE_AFTER_FAILURE_S)


async def run(options: argparse.Namespace) -> int:
    load, started_s = Load(options), time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, load.stop)
    await load.run(options.seconds)
    report = WorkerReport(tuple(load.outcomes), time.process_time(), time.monotonic() - started_s, 0)
    uploaded = upload_figures(load.uploads, options.file.stat().st_size)
    del uploaded["stored_mbps"]  # of uploads that all begin at once
    played = summary([report])
    print_table(uploaded, f"{options.uploads} uploads beside each other of {options.file.name}")
    print_table(played, f"{options.clients} smart clients beside each other at speed {options.speed:g}")
    if options.json is not None:
        figures = {
            "uploads": uploaded,
            "stored": [one.video_id for one in load.uploads if one.error is None],
            "playback": played,
            "each_playback": [dataclasses.asdict(one) for one in load.outcomes],
        }
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 1 if uploaded["failed_uploads"] or played["failed_clients"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--metadata", nargs="+", default=["http://127.0.0.1:8080"], metavar="URL")
    parser.add_argument("--uploader", default="http://127.0.0.1:8084", metavar="URL")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="the video to upload")
    parser.add_argument("--uploads", type=int, default=3, metavar="N")
    parser.add_argument("--rest", type=float, default=1.0, metavar="S", help="between two uploads in a row (1)")
    parser.add_argument("--clients", type=int, default=20, metavar="N")
    parser.add_argument("--video", nargs="+", default=[], metavar="ID", help="default: every active video, in turn")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="1 is real time")
    parser.add_argument("--seconds", type=float, default=3600.0, metavar="S", help="at most (3600)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures and every playback's outcome there"
    )
    logs.configure("load", "error")
    return uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
