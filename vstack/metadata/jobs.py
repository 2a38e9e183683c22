"""Background work: one pass after another, for as long as the service runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog

from vstack.errors import UnavailableError

OBEY_TIMEOUT_S: Final = 1.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def repeating(name: str, work: Callable[[], Awaitable[object]], *, interval_s: float) -> AsyncIterator[None]:
    """Run `work` every `interval_s` seconds inside the block. A pass that fails is logged; the next one tries again."""
    task = asyncio.create_task(_repeat(name, work, interval_s), name=name)
    try:
        yield
    finally:
        await end(task)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end. Asks again until it obeys: `asyncio.wait_for` of Python 3.11, which the pool
    of connections uses, swallows a cancellation that meets the result it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=OBEY_TIMEOUT_S)


async def _repeat(name: str, work: Callable[[], Awaitable[object]], interval_s: float) -> None:
    while True:
        try:
            await work()
        except UnavailableError as error:
            log.info("job_postponed", job=name, reason=str(error))
        except Exception:
            log.exception("job_failed", job=name)
        await asyncio.sleep(interval_s)
