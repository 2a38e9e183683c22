"""The threads that blocking calls run in, and finishing what was begun when the caller gives up.

A thread that reads into or writes from a buffer cannot be called back. So a cancelled caller waits for it all the same
and is cancelled afterwards; until then its buffers, locks and pins stay its own.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """`io` serves reads and writes; flushes and upkeep have a thread each, so that neither waits in a queue."""

    def __init__(self, io: Executor, flush: Executor, upkeep: Executor) -> None:
        self._io = io
        self._flush = flush
        self._upkeep = upkeep

    @classmethod
    def start(cls, io_threads: int) -> "Threads":
        return cls(
            ThreadPoolExecutor(io_threads, "disk-io"),
            ThreadPoolExecutor(1, "disk-flush"),
            ThreadPoolExecutor(1, "disk-upkeep"),
        )

    def io(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _run(self._io, lambda: call(*args, **kwargs))

    def flush(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _run(self._flush, lambda: call(*args, **kwargs))

    def upkeep(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _run(self._upkeep, lambda: call(*args, **kwargs))

    def stop(self) -> None:
        for executor in (self._io, self._flush, self._upkeep):
            executor.shutdown()


async def finish(work: Coroutine[object, object, T]) -> T:
    """Run `work` to its end even if the caller is cancelled meanwhile."""
    return await _completed(asyncio.ensure_future(work))


async def _run(executor: Executor, call: Callable[[], T]) -> T:
    return await _completed(asyncio.get_running_loop().run_in_executor(executor, call))


async def _completed(future: "asyncio.Future[T]") -> T:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: the caller has gone
        raise
