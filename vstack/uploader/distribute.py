"""Spreads the chunks of one video over the storage nodes: a bounded pipeline in order of production.

Invariants: at most IN_FLIGHT chunks are on their way to their commit and at most MAX_FOLLOWED wait for a late copy, so
memory is bounded; commits may complete out of order; the first chunk that cannot be committed ends all; a chunk that is
committed already is neither written again nor passed over with other bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final, Self

from vstack import checksums
from vstack.core.fmp4.chunk import PackedChunk
from vstack.errors import ConflictError
from vstack.uploader.chunkwrite import CUT_DIFFERENTLY, ChunkWrite, Cluster, Target

IN_FLIGHT: Final = 4
MAX_FOLLOWED: Final = 4

OnCommitted = Callable[[PackedChunk], Awaitable[None]]


class Distributor:
    """Writes chunks of one video. Leaving the context waits for late copies, each up to its deadline.

    `committed` has the hex checksums of the chunks that an earlier run has committed, by number.
    """

    def __init__(
        self, target: Target, cluster: Cluster, on_committed: OnCommitted, committed: Mapping[int, str] | None = None
    ) -> None:
        self._committed = committed or {}
        self._target = target
        self._cluster = cluster
        self._on_committed = on_committed
        self._followers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for follower in self._followers:
                follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    async def write_all(self, chunks: AsyncIterator[PackedChunk]) -> int:
        """Commit every chunk that is not; returns how many there were. ConflictError where one differs from before."""
        slots = asyncio.Semaphore(IN_FLIGHT)
        count = 0
        try:
            async with asyncio.TaskGroup() as group:
                async for chunk in chunks:
                    count += 1
                    if self._is_committed(chunk):
                        await self._on_committed(chunk)
                        continue
                    await slots.acquire()
                    group.create_task(self._write(chunk, slots))
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        return count

    def _is_committed(self, chunk: PackedChunk) -> bool:
        checksum = self._committed.get(chunk.number)
        if checksum is not None and checksum != checksums.of(chunk.data):
            raise ConflictError(CUT_DIFFERENTLY)
        return checksum is not None

    async def _write(self, chunk: PackedChunk, slots: asyncio.Semaphore) -> None:
        write = ChunkWrite(chunk, self._target, self._cluster)
        try:
            await write.run()
            await self._on_committed(chunk)
        except BaseException:
            await write.close()
            raise
        finally:
            slots.release()
        if write.late and len(self._followers) < MAX_FOLLOWED:
            follower = asyncio.create_task(_follow(write))
            self._followers.add(follower)
            follower.add_done_callback(self._followers.discard)
        else:
            await write.close()


async def _follow(write: ChunkWrite) -> None:
    try:
        await write.follow()
    finally:
        await write.close()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended the others."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
