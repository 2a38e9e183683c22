"""Pooled page-aligned buffers: bodies are received into and served from the memory that direct I/O uses.

Layout of a buffer: one page for the record header, then room for the largest payload, so that header and payload are
one contiguous write or read without a copy.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vstack.core.superblock.layout import MAX_RECORD_PAGES, PAGE_BYTES
from vstack.storage.directio import aligned_buffer
from vstack.units import MAX_CHUNK_BYTES


class RecordBuffer:
    """Room for one chunk record."""

    __slots__ = ("payload", "view")

    def __init__(self) -> None:
        self.view = aligned_buffer(MAX_RECORD_PAGES * PAGE_BYTES)
        self.payload = self.view[PAGE_BYTES : PAGE_BYTES + MAX_CHUNK_BYTES]

    @property
    def header(self) -> memoryview:
        return self.view[:PAGE_BYTES]


class BufferPool:
    """At most `limit` buffers, made when first needed. Waiting for one is how memory stays bounded."""

    def __init__(self, limit: int) -> None:
        self._free: deque[RecordBuffer] = deque()
        self._permits = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[RecordBuffer]:
        async with self._permits:
            buffer = self._free.pop() if self._free else RecordBuffer()
            try:
                yield buffer
            finally:
                self._free.append(buffer)
