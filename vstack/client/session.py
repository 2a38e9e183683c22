"""Drives one playback: performs what the core decides, and tells it what came of it.

Invariants: bytes reach the output only verified, in order and once; when `run` returns or raises, no task and no
request of this playback is left. One task alone steps the core, so nothing here needs a lock.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final

import structlog

from vstack.client.assembly import assemble
from vstack.client.downloader import DownloadError, Received, download
from vstack.client.manifest import to_plan
from vstack.client.output import Output
from vstack.client.report import Figures, PlaybackReport
from vstack.core.playback.events import (
    Assembled,
    Cancel,
    Complete,
    Failed,
    Fetch,
    Fetched,
    Progress,
    Refresh,
    Replanned,
    Spoiled,
    Tick,
)
from vstack.core.playback.machine import Delivered, Effect, Ended, Event, GaveUp, Playback, Started
from vstack.core.playback.plan import Plan, Source
from vstack.errors import CorruptionError, NotFoundError, RemoteError, UnavailableError, VStackError
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.wire.metadata import Manifest

MANIFEST_TIMEOUT_S: Final = 3.0
VIEW_GRACE_S: Final = 2.0
"""How long the end of a playback waits for its view to be counted."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Download:
    """A request in flight. `told_bytes` is the progress that the core knows of."""

    task: asyncio.Task[None]
    index: int
    source: Source
    received: Received
    told_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Arrival:
    """Verified bytes of download `attempt`."""

    attempt: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Whole:
    """The bytes of chunk `index`, put together."""

    index: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Services:
    """Whom a playback talks to."""

    metadata: MetadataClient
    storage: StorageClient


class PlaybackSession:
    """One playback of `manifest`, decided by `playback` over `plan`. Run it once.

    `begun_s` is when the viewer pressed play, on the loop's clock.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        playback: Playback,
        *,
        services: Services,
        output: Output,
        begun_s: float,
        on_started: Callable[[float], None] | None = None,
    ) -> None:
        self.plan = plan
        self._video_id = manifest.video_id
        self._title = manifest.title
        self._playback = playback
        self._services = services
        self._output = output
        self._begun_s = begun_s
        self._on_started = on_started
        self._happened: asyncio.Queue[Event | _Arrival | _Whole | VStackError] = asyncio.Queue()
        self._to_write: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._downloads: dict[int, _Download] = {}
        self._parts: dict[int, dict[str, bytes]] = {}
        self._ready: dict[int, bytes] = {}
        self._next_output = 0
        self._view: asyncio.Task[None] | None = None
        self._outcome: Ended | VStackError | None = None
        self._startup_s: float | None = None
        self._ended_s: float | None = None
        self._busy_s = 0.0
        self._downloaded_bytes = 0
        self._by_node: dict[str, int] = {}

    async def run(self) -> PlaybackReport:
        """Play to the end; cancelling ends the playback at once.

        UnavailableError when a chunk cannot be had in time, NotFoundError when the video is deleted, OutputError.
        """
        try:
            await self._output.open()
            async with self._tasks:
                try:
                    await self._drive()
                finally:
                    self._cut_off()
        finally:
            self._ended_s = _now()
            await self._output.close()
        if isinstance(self._outcome, VStackError):
            raise self._outcome
        return self._report()

    @property
    def over(self) -> bool:
        """Whether `run` has returned or raised."""
        return self._ended_s is not None

    def figures(self) -> Figures:
        """How it stands now, or stood at its end."""
        counts = self._playback.counts
        return Figures(
            video_id=self._video_id,
            title=self._title,
            playing=self._ended_s is None,
            startup_s=self._startup_s,
            buffer=self._playback.buffer(_now() if self._ended_s is None else self._ended_s),
            size_bytes=self._output.size_bytes,
            downloaded_bytes=self._downloaded_bytes,
            busy_s=self._busy_s,
            downloads=dict(self._by_node),
            failures=dict(counts.failures),
            dropped=counts.dropped,
            failovers=counts.failovers,
            hedges=counts.hedges,
        )

    async def _drive(self) -> None:
        """Step the core until the playback is over, one way or the other."""
        self._spawn(self._write_out())
        stepped_s = _now()
        self._step(Tick())
        while self._outcome is None:
            busy = bool(self._downloads)
            happened = await self._wait()
            if busy:
                self._busy_s += _now() - stepped_s
            stepped_s = _now()
            self._report_progress()
            self._take(happened)
        if self._view is not None:
            await asyncio.wait({self._view}, timeout=VIEW_GRACE_S)

    async def _wait(self) -> Event | _Arrival | _Whole | VStackError:
        wake_at_s = self._playback.wake_at_s(_now())
        try:
            async with asyncio.timeout_at(None if wake_at_s == float("inf") else wake_at_s):
                return await self._happened.get()
        except TimeoutError:
            return Tick()

    def _report_progress(self) -> None:
        for attempt, running in list(self._downloads.items()):
            if running.received.size_bytes != running.told_bytes:
                running.told_bytes = running.received.size_bytes
                self._step(Progress(attempt, running.told_bytes))

    def _take(self, happened: Event | _Arrival | _Whole | VStackError) -> None:
        match happened:
            case _Arrival(attempt=attempt, data=data):
                running = self._downloads.pop(attempt, None)
                if running is None:  # cut off after its last byte
                    return
                node = running.source.node
                self._by_node[node] = self._by_node.get(node, 0) + 1
                self._downloaded_bytes += len(data)
                self._parts.setdefault(running.index, {})[running.source.object_id] = data
                self._step(Fetched(attempt))
            case _Whole(index=index, data=data):
                self._ready[index] = data
                self._hand_out()
                self._step(Assembled(index))
            case VStackError():
                self._outcome = self._outcome or happened
            case Failed(attempt=attempt):
                self._downloads.pop(attempt, None)
                self._step(happened)
            case _:
                self._step(happened)

    def _step(self, event: Event) -> None:
        for effect in self._playback.step(event, _now()):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Fetch(attempt=attempt, index=index, source=source):
                received = Received()
                task = self._spawn(self._download(attempt, source, received))
                self._downloads[attempt] = _Download(task, index, source, received)
            case Cancel(attempt=attempt):
                running = self._downloads.pop(attempt, None)
                if running is not None:
                    running.task.cancel()
            case Complete():
                self._spawn(self._assemble(effect, self._parts.pop(effect.index)))
            case Refresh():
                self._spawn(self._refresh())
            case Started():
                self._startup_s = _now() - self._begun_s
                if self._on_started is not None:
                    self._on_started(self._startup_s)
                self._view = self._spawn(self._count_view())
            case Ended():
                self._outcome = effect
            case GaveUp(reason=reason):
                self._outcome = UnavailableError(reason)

    def _hand_out(self) -> None:
        while self._next_output in self._ready:
            self._to_write.put_nowait((self._next_output, self._ready.pop(self._next_output)))
            self._next_output += 1

    async def _write_out(self) -> None:
        try:
            while True:
                index, data = await self._to_write.get()
                await self._output.write(data)
                self._happened.put_nowait(Delivered(index))
        except VStackError as error:
            self._happened.put_nowait(error)

    async def _download(self, attempt: int, source: Source, received: Received) -> None:
        try:
            data = await download(self._services.storage, source, received)
        except DownloadError as error:
            log.info("download_failed", object_id=source.object_id, reason=error.reason, error=str(error))
            self._happened.put_nowait(Failed(attempt, error.reason))
        else:
            self._happened.put_nowait(_Arrival(attempt, data))

    async def _assemble(self, complete: Complete, parts: dict[str, bytes]) -> None:
        try:
            data = await assemble(complete.chunk, complete.sources, parts)
        except CorruptionError as error:
            log.warning("chunk_spoiled", error=str(error))
            self._happened.put_nowait(Spoiled(complete.index))
        else:
            self._happened.put_nowait(_Whole(complete.index, data))

    async def _refresh(self) -> None:
        """Ask for the manifest again: a video that is gone ends the playback, a service that is away does not."""
        try:
            plan = to_plan(await self._services.metadata.manifest(self._video_id, timeout_s=MANIFEST_TIMEOUT_S))
            if len(plan.chunks) != len(self.plan.chunks):
                raise RemoteError(f"the manifest of video {self._video_id} changed its number of chunks")
        except NotFoundError:
            self._happened.put_nowait(NotFoundError(f"video {self._video_id} was deleted while it was played"))
        except VStackError as error:
            log.warning("manifest_refresh_failed", video_id=self._video_id, error=str(error))
            self._happened.put_nowait(Replanned(None))
        else:
            self.plan = plan
            self._happened.put_nowait(Replanned(plan))

    async def _count_view(self) -> None:
        try:
            await self._services.metadata.count_view(self._video_id)
        except VStackError as error:
            log.warning("view_not_counted", video_id=self._video_id, error=str(error))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _cut_off(self) -> None:
        self._playback.stop(_now())
        for task in self._running:
            task.cancel()

    def _report(self) -> PlaybackReport:
        assert self._startup_s is not None
        assert self._ended_s is not None
        figures = self.figures()
        return PlaybackReport(
            video_id=self._video_id,
            title=self._title,
            chunks=len(self.plan.chunks),
            size_bytes=figures.size_bytes,
            sha256=self._output.sha256,
            startup_s=self._startup_s,
            elapsed_s=self._ended_s - self._begun_s,
            played_s=figures.buffer.playhead_s,
            stalls=figures.buffer.stalls,
            stall_s=figures.buffer.stall_s,
            average_buffer_s=figures.buffer.average_level_s,
            failovers=figures.failovers,
            hedges=figures.hedges,
            downloads=figures.downloads,
            failed_downloads={str(reason): count for reason, count in figures.failures.items()},
            throughput_mbps=figures.throughput_mbps,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
