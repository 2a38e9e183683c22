"""The bounded queue of jobs.

Invariants: at most `max_jobs` run at once; receiving, waiting and running uploads together never exceed
`max_jobs + max_queued`, so what was admitted is never refused later; every worker is stopped before the queue closes;
once it drains, nothing new is admitted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

import structlog

from vstack.errors import UnavailableError
from vstack.uploader.metrics import Metrics

RETRY_AFTER_S: Final = 10.0
RESTARTED_AFTER_S: Final = 5.0

log = structlog.get_logger()

Run = Callable[[str], Awaitable[None]]


class JobQueue:
    """Runs `run(session_id)` for every submitted session, `max_jobs` at a time, in order of submission."""

    def __init__(self, run: Run, *, max_jobs: int, max_queued: int, metrics: Metrics) -> None:
        self._run = run
        self._max_jobs = max_jobs
        self._capacity = max_jobs + max_queued
        self._metrics = metrics
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._receiving = 0
        self._nothing_received = asyncio.Event()
        self._nothing_received.set()
        self._unfinished = 0
        self.draining = False

    @property
    def active(self) -> int:
        """Uploads that are being received, waiting or worked on."""
        return self._receiving + self._unfinished

    def require_room(self) -> None:
        """UnavailableError while the queue is full or drains."""
        if self.draining:
            raise UnavailableError("the uploader is being restarted", retry_after_s=RESTARTED_AFTER_S)
        if self.active >= self._capacity:
            raise UnavailableError("the uploader has as many uploads as it takes", retry_after_s=RETRY_AFTER_S)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for a file that is being received; `put` inside the block makes it one for a job."""
        self.require_room()
        self._receiving += 1
        self._nothing_received.clear()
        self._metrics.receiving.inc()
        try:
            yield
        finally:
            self._receiving -= 1
            self._metrics.receiving.dec()
            if not self._receiving:
                self._nothing_received.set()

    async def drain(self, timeout_s: float) -> None:
        """Admit nothing more; returns when no file is being received, or after `timeout_s`. Jobs go on."""
        self.draining = True
        log.info("draining", receiving=self._receiving, timeout_s=timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._nothing_received.wait()

    def put(self, session_id: str) -> None:
        """Let a session wait for its turn. At start-up this may go beyond the bound: those were admitted before."""
        self._unfinished += 1
        self._metrics.queued_jobs.inc()
        self._waiting.put_nowait(session_id)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Jobs run inside the block; those that still run at its end are cancelled and have ended after it."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._max_jobs)]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            session_id = await self._waiting.get()
            self._metrics.queued_jobs.dec()
            try:
                with self._metrics.active_jobs.track_inprogress():
                    await self._run(session_id)
            except Exception:
                log.exception("job_crashed", session_id=session_id)
            finally:
                self._unfinished -= 1
