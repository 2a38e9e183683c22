"""Background work: one pass after another, for as long as the service runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from vstack.errors import UnavailableError

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def repeating(name: str, work: Callable[[], Awaitable[object]], *, interval_s: float) -> AsyncIterator[None]:
    """Run `work` every `interval_s` seconds inside the block. A pass that fails is logged; the next one tries again."""
    task = asyncio.create_task(_repeat(name, work, interval_s), name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _repeat(name: str, work: Callable[[], Awaitable[object]], interval_s: float) -> None:
    while True:
        try:
            await work()
        except UnavailableError as error:
            log.info("job_postponed", job=name, reason=str(error))
        except Exception:
            log.exception("job_failed", job=name)
        await asyncio.sleep(interval_s)
