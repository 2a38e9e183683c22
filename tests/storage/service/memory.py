"""An engine in memory that keeps the contract, with the faults that a test wants to see."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from vstack.core.paxos.acceptor import AcceptorState, closes, governing
from vstack.errors import (
    ConflictError,
    CorruptionError,
    DiskError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
)
from vstack.storage.contract import (
    ChunkInfo,
    Counters,
    DiskState,
    Identity,
    PutBuffer,
    PutOutcome,
    Reading,
    Usage,
)
from vstack.units import MAX_CHUNK_BYTES


@dataclass
class MemoryBuffer:
    payload: memoryview = field(default_factory=lambda: memoryview(bytearray(MAX_CHUNK_BYTES)))


@dataclass(frozen=True)
class MemoryReading:
    info: ChunkInfo
    payload: memoryview


class MemoryEngine:
    def __init__(self, identity: Identity, *, buffers: int = 4) -> None:
        self.identity = identity
        self.state = DiskState.HEALTHY
        self.borrowed = 0
        self.closed = False
        self._free = asyncio.Semaphore(buffers)
        self._writing = asyncio.Lock()
        self._data: dict[str, tuple[ChunkInfo, bytearray]] = {}
        self._acceptors: dict[str, dict[int, AcceptorState]] = {}
        self._counters = Counters()

    def flip_byte(self, chunk_id: str) -> None:
        self._data[chunk_id][1][-1] ^= 1

    @contextlib.asynccontextmanager
    async def buffer(self) -> AsyncIterator[PutBuffer]:
        async with self._free:
            self.borrowed += 1
            try:
                yield MemoryBuffer()
            finally:
                self.borrowed -= 1

    async def put(
        self,
        chunk_id: str,
        buffer: PutBuffer,
        size_bytes: int,
        *,
        epoch: int = 0,
        fragment_index: int = -1,
        expected_checksum: str | None = None,
        acceptance: AcceptorState | None = None,
    ) -> PutOutcome:
        data = bytearray(buffer.payload[:size_bytes])
        checksum = hashlib.sha256(data).hexdigest()
        if expected_checksum not in (None, checksum):
            raise InvalidRequestError("the bytes do not have that checksum")
        async with self._writing:
            stored = self._data.get(chunk_id)
            if stored is not None and stored[0].checksum != checksum:
                raise ConflictError(f"{chunk_id} holds other bytes", chosen={"checksum": stored[0].checksum})
            if stored is None or acceptance is not None:
                await self._flush((stored is None) + (acceptance is not None))
            info = ChunkInfo(chunk_id, size_bytes, checksum, "memory", epoch, fragment_index)
            self._data.setdefault(chunk_id, (info, data))
            if acceptance is not None:
                self._keep(acceptance)
            return PutOutcome(stored is None, self._data[chunk_id][0])

    @contextlib.asynccontextmanager
    async def get(self, chunk_id: str) -> AsyncIterator[Reading]:
        if chunk_id not in self._data:
            raise NotFoundError(f"no chunk {chunk_id}")
        info, data = self._data[chunk_id]
        if hashlib.sha256(data).hexdigest() != info.checksum:
            raise CorruptionError(f"{chunk_id} fails its checksum")
        self.borrowed += 1
        lent = bytearray(data)
        try:
            yield MemoryReading(info, memoryview(lent))
        finally:
            lent[:] = b"\xff" * len(lent)  # as if the buffer had been filled again
            self.borrowed -= 1

    async def head(self, chunk_id: str) -> ChunkInfo | None:
        return self._data[chunk_id][0] if chunk_id in self._data else None

    async def delete(self, chunk_id: str) -> bool:
        if chunk_id not in self._data:
            return False
        await self._flush(1)
        del self._data[chunk_id]
        return True

    async def journal(self, states: Sequence[AcceptorState]) -> None:
        await self._flush(len(states))
        for state in states:
            self._keep(state)

    async def acceptor(self, chunk_id: str, epoch: int) -> AcceptorState | None:
        return governing(self._acceptors.get(chunk_id, {}).values(), epoch)

    async def chunks(
        self, after: str | None, limit: int, *, video_id: str | None = None
    ) -> tuple[list[ChunkInfo], str | None]:
        rows = [
            self._data[name][0]
            for name in sorted(self._data)
            if (after is None or name > after) and (video_id is None or name.startswith(f"{video_id}-chunk-"))
        ]
        return rows[:limit], rows[limit - 1].chunk_id if len(rows) > limit else None

    async def acceptors(self, after: str | None, limit: int) -> tuple[list[AcceptorState], str | None]:
        names = sorted(name for name in self._acceptors if after is None or name > after)
        states = [state for name in names[:limit] for state in self._acceptors[name].values()]
        return states, names[limit - 1] if len(names) > limit else None

    def usage(self) -> Usage:
        live = sum(info.size_bytes for info, _ in self._data.values())
        percent = {DiskState.HEALTHY: 10, DiskState.WARNING: 90, DiskState.CRITICAL: 96, DiskState.READ_ONLY: 10}
        return Usage(self.state, 1000_000, percent[self.state] * 10_000, live, 0, len(self._data))

    def counters(self) -> Counters:
        return self._counters

    async def close(self) -> None:
        assert self.borrowed == 0
        self.closed = True

    async def _flush(self, writes: int) -> None:
        if self.state is DiskState.READ_ONLY:
            raise DiskError("the disk is read-only")
        if self.state is DiskState.CRITICAL:
            raise StorageFullError("the disk is full")
        await asyncio.sleep(0)
        self._counters = replace(
            self._counters,
            flushes=self._counters.flushes + 1,
            flushed_writes=self._counters.flushed_writes + writes,
        )

    def _keep(self, state: AcceptorState) -> None:
        epochs = self._acceptors.setdefault(state.instance.chunk_id, {})
        epochs[state.instance.epoch] = state
        for epoch in [epoch for epoch in epochs if epoch != state.instance.epoch and closes(state, epoch)]:
            del epochs[epoch]
