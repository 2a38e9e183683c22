"""The threads that blocking calls run in, and finishing them when the caller gives up."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """`io` serves reads and writes; flushes and maintenance have a thread each, so that neither waits in a queue."""

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

    async def io(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, lambda: call(*args, **kwargs))

    async def flush(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._flush, lambda: call(*args, **kwargs))

    async def upkeep(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._upkeep, lambda: call(*args, **kwargs))

    def stop(self) -> None:
        for executor in (self._io, self._flush, self._upkeep):
            executor.shutdown()


async def finish(work: Coroutine[object, object, T]) -> T:
    """Run `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards.

    A thread that reads into or writes from a buffer cannot be called back, so the buffer must stay borrowed until then.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done():
                break
            cancelled = error
        except BaseException:  # noqa: BLE001 - `task` holds it and raises it below
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
