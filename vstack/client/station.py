"""The player behind the HTTP API: one playback at a time, its figures, and their history.

Invariant: the playback that runs is one task, and `stop` or the end of `running` leaves none.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import structlog

from vstack.client.history import SAMPLE_INTERVAL_S, Recorder
from vstack.client.report import Figures
from vstack.client.session import PlaybackSession
from vstack.client.smart_client import SmartClient
from vstack.client.totals import Totals
from vstack.client.views import scores
from vstack.errors import ConflictError, VStackError

log = structlog.get_logger()


class Station:
    """Plays what it is told. `on_started` is called with every startup latency in seconds."""

    def __init__(self, client: SmartClient, on_started: Callable[[float], None]) -> None:
        self.client = client
        self.recorder = Recorder()
        self.endings: Counter[str] = Counter(completed=0, stopped=0, failed=0)
        self.error: str | None = None
        self._on_started = on_started
        self._session: PlaybackSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._past = Totals()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The station on the air: its client entered, its history sampled."""
        async with self.client:
            sampler = asyncio.create_task(self._sample())
            try:
                yield
            finally:
                sampler.cancel()
                await asyncio.wait({sampler})
                await self.stop()

    @property
    def playing(self) -> bool:
        return self._task is not None

    @property
    def figures(self) -> Figures | None:
        """Of what plays now, or played last."""
        return self._session.figures() if self._session is not None else None

    @property
    def totals(self) -> Totals:
        """Over all playbacks, the running one included."""
        if self._task is None or self._session is None:
            return self._past
        return self._past + Totals.of(self._session.figures())

    async def play(self, video_id: str, speed: float) -> None:
        """Start a playback, which then goes on by itself. ConflictError while another runs; see `SmartClient`."""
        async with self._starting:
            if self.playing:
                raise ConflictError("a video is playing: stop it first")
            session = await self.client.prepare(video_id, speed=speed, on_started=self._on_started)
            self._session, self.error = session, None
            self._task = asyncio.create_task(self._run(session))
            await asyncio.sleep(0)  # a task that is cancelled before it has begun would never clean up

    async def stop(self) -> None:
        """End the running playback, if any."""
        async with self._starting:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})

    async def _run(self, session: PlaybackSession) -> None:
        ending = "failed"
        try:
            await session.run()
            ending = "completed"
        except asyncio.CancelledError:
            ending = "stopped"
            raise
        except VStackError as error:
            self.error = str(error)
            log.warning("playback_failed", error=str(error), code=error.code)
        except Exception:
            self.error = "internal error"
            log.exception("playback_crashed")
        finally:
            self.endings[ending] += 1
            self._past += Totals.of(session.figures())
            self._task = None

    async def _sample(self) -> None:
        """Feed the history until cancelled."""
        seen = self.totals.downloaded_bytes
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            total, figures = self.totals.downloaded_bytes, self.figures
            self.recorder.sample(
                time.time(),
                level_s=figures.buffer.level_s if figures is not None and figures.playing else 0.0,
                mbps=(total - seen) * 8 / 1e6 / SAMPLE_INTERVAL_S,
                scores=scores(self.client.nodes),
            )
            seen = total
