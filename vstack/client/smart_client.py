"""The smart client: the library's face.

    async with SmartClient() as client:
        report = await client.play_video(video_id, output=Path("video.mp4"), speed=0)

or, for one video, `await SmartClient().play_video(video_id)`.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import aiohttp
import structlog

from vstack import ids
from vstack.client.manifest import to_plan
from vstack.client.monitor import PING_INTERVAL_S, NodeMonitor
from vstack.client.output import Output
from vstack.client.report import PlaybackReport
from vstack.client.session import MANIFEST_TIMEOUT_S, PlaybackSession, Services
from vstack.core.playback.buffer import BufferRules
from vstack.core.playback.machine import PATIENCE_S, Playback
from vstack.core.playback.scoring import NodeTable
from vstack.errors import InvalidRequestError, RemoteError, UnavailableError
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.wire.client import MAX_SPEED
from vstack.wire.metadata import Manifest

log = structlog.get_logger()

DEFAULT_METADATA_URLS: Final = ("http://localhost:8080",)
MANIFEST_PAUSE_S: Final = 1.0
"""Before the metadata services are asked again, all of which were tried with retries."""


class SmartClient:
    """Plays videos from the nodes that are best right now, and remembers how each node behaves.

    `session` is an HTTP session to share (it stays open); without one the client has its own. Connections and the
    monitor live while the client is entered or a video plays; nothing is left after that. `patience_s` is how long a
    viewer who sees nothing waits, for the manifest or for a chunk, before the playback fails.
    """

    def __init__(
        self,
        metadata_urls: Sequence[str] = DEFAULT_METADATA_URLS,
        *,
        session: aiohttp.ClientSession | None = None,
        rules: BufferRules = BufferRules(),  # noqa: B008 - frozen
        patience_s: float = PATIENCE_S,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self.nodes = NodeTable()
        self.rules = rules
        self._metadata_urls = tuple(metadata_urls)
        self._shared = session
        self._patience_s = patience_s
        self._ping_interval_s = ping_interval_s
        self._leases = 0
        self._resources = contextlib.AsyncExitStack()
        self._services: Services | None = None
        self._sessions: list[PlaybackSession] = []

    async def __aenter__(self) -> Self:
        await self._acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._release()

    async def play_video(
        self, video_id: str, *, output: BinaryIO | Path | None = None, speed: float = 1.0
    ) -> PlaybackReport:
        """Play a video to its end, and report.

        `output` gets the exact bytes in order, each chunk as soon as it is verified. `speed` 1 is real time, 0 as fast
        as possible. NotFoundError, UnavailableError (metadata service away, a chunk that cannot be had), OutputError.
        """
        async with self:
            session = await self.prepare(video_id, output=output, speed=speed)
            return await session.run()

    async def prepare(
        self,
        video_id: str,
        *,
        output: BinaryIO | Path | None = None,
        speed: float = 1.0,
        on_started: Callable[[float], None] | None = None,
    ) -> PlaybackSession:
        """A playback that is ready to `run`, for callers who watch it; the client must stay entered meanwhile.

        `on_started` is called with the startup latency in seconds when the first picture can be shown.
        """
        ids.check(video_id, "video id")
        if not 0 <= speed <= MAX_SPEED:
            raise InvalidRequestError(f"speed must be 0 (as fast as possible) to {MAX_SPEED:g}")
        if self._services is None:
            raise RuntimeError("enter the client (async with) before prepare")
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        manifest = await self._await_manifest(self._services.metadata, video_id)
        plan = to_plan(manifest)
        playback = Playback(
            plan,
            self.nodes,
            random.random,
            now_s=loop.time(),
            speed=speed,
            rules=self.rules,
            patience_s=self._patience_s,
        )
        session = PlaybackSession(
            manifest,
            plan,
            playback,
            services=self._services,
            output=Output(output),
            begun_s=begun_s,
            on_started=on_started,
        )
        self._sessions = [known for known in self._sessions if not known.over] + [session]
        return session

    async def _await_manifest(self, metadata: MetadataClient, video_id: str) -> Manifest:
        """While the services cannot tell, the viewer waits: a database that fails over is back within seconds. Where
        nobody listens, it is told at once.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._patience_s
        while True:
            try:
                return await metadata.manifest(video_id, timeout_s=MANIFEST_TIMEOUT_S)
            except (RemoteError, UnavailableError) as error:
                nobody = isinstance(error.__cause__, aiohttp.ClientConnectorError)
                if nobody or loop.time() + MANIFEST_PAUSE_S > deadline_s:
                    raise
                log.info("manifest_awaited", video_id=video_id, reason=str(error))
            await asyncio.sleep(MANIFEST_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    def _named_nodes(self) -> frozenset[str]:
        """The nodes of what plays now, or played last."""
        playing = [session for session in self._sessions if not session.over] or self._sessions[-1:]
        return frozenset().union(*(session.plan.nodes for session in playing))

    async def _acquire(self) -> None:
        self._leases += 1
        if self._leases > 1:
            return
        session = self._shared
        if session is None:
            session = await self._resources.enter_async_context(new_session())
        storage = StorageClient(session)
        self._services = Services(MetadataClient(session, self._metadata_urls), storage)
        monitor = NodeMonitor(storage, self.nodes, self._named_nodes, interval_s=self._ping_interval_s)
        await self._resources.enter_async_context(_running(monitor))

    async def _release(self) -> None:
        self._leases -= 1
        if self._leases:
            return
        resources, self._resources = self._resources, contextlib.AsyncExitStack()
        self._services = None
        await resources.aclose()


@contextlib.asynccontextmanager
async def _running(monitor: NodeMonitor) -> AsyncIterator[None]:
    """The monitor at work. A fault of it is logged, and leaves playbacks to judge nodes by their downloads alone."""

    async def work() -> None:
        try:
            await monitor.run()
        except Exception:
            log.exception("monitor_failed")

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
