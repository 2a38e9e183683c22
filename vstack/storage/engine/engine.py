"""The engine: one data directory on one disk, kept by the contract in vstack.storage.contract.

This module says who holds which lock, buffer and pin while a plan runs; what happens to bytes is in `plans`, `commit`,
`volume` and `upkeep`.

Invariants: at most one write per chunk id is in progress; a call that was cancelled still runs to its end before its
buffer and locks are given back; nothing on the event loop waits for the disk.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from vstack.core.paxos.acceptor import AcceptorState, governing
from vstack.core.superblock.allocator import RESERVED_SUPERBLOCKS
from vstack.core.superblock.entries import Entry
from vstack.core.superblock.index import CompactIndex
from vstack.core.superblock.layout import MAX_BATCH_RECORDS
from vstack.core.superblock.record import ACCEPTOR_TYPES, AcceptorBody, ChunkBody, Record, RecordType
from vstack.errors import CorruptionError, InvalidRequestError, NotFoundError, TooLargeError
from vstack.storage.contract import ChunkInfo, Counters, DiskState, Identity, PutBuffer, PutOutcome, Reading, Usage
from vstack.storage.engine.buffers import BufferPool, RecordBuffer
from vstack.storage.engine.commit import GroupCommit
from vstack.storage.engine.listing import Lister
from vstack.storage.engine.plans import DeletePlan, JournalPlan, PutPlan
from vstack.storage.engine.superblocks import Birth
from vstack.storage.engine.threads import Threads, finish
from vstack.storage.engine.upkeep import Limits, Upkeep
from vstack.storage.engine.volume import (
    Placed,
    Source,
    Volume,
    chunk_info,
    read_chunk,
    read_header,
    read_states,
    record_info,
)
from vstack.storage.locks import NamedLocks
from vstack.units import DISK_CRITICAL_PERCENT, DISK_WARNING_PERCENT, MAX_CHUNK_BYTES

PUT_BUFFERS: Final = 32
GET_BUFFERS: Final = 64
"""Buffers of 2 MiB each: the most memory that requests in progress take."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ChunkReading:
    """A verified chunk in a pooled buffer."""

    info: ChunkInfo
    payload: memoryview


class DiskEngine:
    """See vstack.storage.contract.Engine. Made by `open_engine`."""

    def __init__(self, volume: Volume, threads: Threads, birth: Birth, limits: Limits) -> None:
        self._volume = volume
        self._catalogue = volume.catalogue
        self._threads = threads
        self._limits = limits
        self._locks = NamedLocks()
        self._put_buffers = BufferPool(PUT_BUFFERS)
        self._get_buffers = BufferPool(GET_BUFFERS)
        self._lister = Lister(volume, threads)
        self._upkeep = Upkeep(
            volume,
            threads,
            birth,
            limits,
            written_bytes=lambda: self._commit.flushed_bytes,
            is_busy=lambda: self._commit.is_busy,
        )
        self._commit = GroupCommit(volume, threads, self._upkeep.open_superblock)
        self._current = volume.allocator.current
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Ready for the first write when it returns."""
        await self._upkeep.prepare()
        self._tasks = [asyncio.create_task(self._upkeep.run()), asyncio.create_task(self._commit.run())]

    @property
    def identity(self) -> Identity:
        stored = self._volume.identity
        return Identity(stored.node_id, stored.disk_uuid, stored.incarnation)

    @asynccontextmanager
    async def buffer(self) -> AsyncIterator[PutBuffer]:
        async with self._put_buffers.borrow() as buffer:
            yield buffer

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
        if size_bytes > MAX_CHUNK_BYTES:
            raise TooLargeError(f"a chunk has at most {MAX_CHUNK_BYTES} bytes")
        if size_bytes < 1:
            raise InvalidRequestError("a chunk has at least one byte")
        assert isinstance(buffer, RecordBuffer)
        states = [acceptance] if acceptance is not None else []

        async def put() -> PutOutcome:
            names = [chunk_id, *(state.instance.chunk_id for state in states)]
            async with self._locks.hold(names), contextlib.AsyncExitStack() as held:
                sources = held.enter_context(self._sources(self._catalogue.chunks, chunk_id))
                scratch = await held.enter_async_context(self._get_buffers.borrow()) if sources else None
                plan = PutPlan(
                    chunk_id,
                    buffer,
                    size_bytes,
                    epoch=epoch,
                    fragment_index=fragment_index,
                    expected_checksum=expected_checksum,
                    journal=self._journal_plan(states, held),
                    sources=sources,
                    scratch=scratch,
                    full=self._used_percent() > DISK_CRITICAL_PERCENT,
                )
                placed = await self._write(plan, use_reserve=False)
                if plan.existing is not None:
                    return PutOutcome(created=False, info=plan.existing)
                assert plan.body is not None
                assert placed is not None
                return PutOutcome(created=True, info=chunk_info(plan.body, placed.reservation.superblock.uuid))

        return await finish(put())

    @asynccontextmanager
    async def get(self, chunk_id: str) -> AsyncIterator[Reading]:
        async with self._get_buffers.borrow() as buffer:
            yield await self._read(chunk_id, buffer)

    async def head(self, chunk_id: str) -> ChunkInfo | None:
        def read() -> ChunkInfo | None:
            damaged = False
            for source in sources:
                record = read_header(source)
                if record is not None and record.chunk_id == chunk_id:
                    return record_info(record)
                damaged |= record is None
            if damaged:
                raise CorruptionError(f"the record header of {chunk_id} is damaged")
            return None

        with self._sources(self._catalogue.chunks, chunk_id) as sources:
            return await self._threads.io(read) if sources else None

    async def delete(self, chunk_id: str) -> bool:
        async def delete() -> bool:
            async with self._locks.hold([chunk_id]):
                with self._sources(self._catalogue.chunks, chunk_id) as sources:
                    if not sources:
                        return False
                    try:
                        await self._write(DeletePlan(chunk_id, sources), use_reserve=True)
                    except NotFoundError:
                        return False
            self._upkeep.wake()
            return True

        return await finish(delete())

    async def journal(self, states: Sequence[AcceptorState]) -> None:
        if len(states) > MAX_BATCH_RECORDS:
            raise InvalidRequestError(f"at most {MAX_BATCH_RECORDS} acceptor states are journalled together")

        async def journal() -> None:
            async with self._locks.hold(state.instance.chunk_id for state in states):
                with ExitStack() as held:
                    plan = self._journal_plan(states, held)
                    await self._write(plan, use_reserve=any(state.retired for state in states))

        if states:
            await finish(journal())

    async def acceptor(self, chunk_id: str, epoch: int) -> AcceptorState | None:
        with self._sources(self._catalogue.acceptors, chunk_id) as sources:
            if not sources:
                return None
            return governing(await self._threads.io(read_states, sources, chunk_id), epoch)

    async def chunks(
        self, after: str | None, limit: int, *, video_id: str | None = None
    ) -> tuple[list[ChunkInfo], str | None]:
        prefix = f"{video_id}-chunk-" if video_id is not None else ""

        def wanted(entry: Entry) -> bool:
            return entry.type is RecordType.CHUNK and entry.chunk_id.startswith(prefix)

        return await self._lister.page(after, limit, wanted, record_info)

    async def acceptors(self, after: str | None, limit: int) -> tuple[list[AcceptorState], str | None]:
        def state(record: Record) -> AcceptorState:
            assert isinstance(record.body, AcceptorBody)
            return record.body.state

        return await self._lister.page(after, limit, lambda entry: entry.type in ACCEPTOR_TYPES, state)

    def usage(self) -> Usage:
        """Capacity is what PUTs can ever fill; used is what of it they cannot fill any more, dead bytes included."""
        superblocks = self._catalogue.superblocks.values()
        capacity = self._capacity_bytes()
        return Usage(
            state=self._state(),
            capacity_bytes=capacity,
            used_bytes=max(0, capacity - self._available_bytes()),
            live_bytes=sum(superblock.live_bytes for superblock in superblocks),
            quarantined_bytes=self._volume.damaged_bytes
            + sum(superblock.quarantined_bytes for superblock in superblocks),
            chunk_count=len(self._catalogue.chunks),
        )

    def counters(self) -> Counters:
        return self._commit.counters

    async def close(self) -> None:
        if not self._tasks:
            return
        upkeep, flusher = self._tasks
        self._upkeep.stop()
        await upkeep
        flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flusher
        self._tasks = []
        try:
            if self._volume.failure is None:
                await self._upkeep.snapshot(clean=True)
        except OSError as error:
            log.warning("the closing snapshot could not be written", reason=str(error))
        finally:
            await self._threads.upkeep(self._volume.close)
            self._threads.stop()

    async def _read(self, chunk_id: str, buffer: RecordBuffer) -> ChunkReading:
        def read() -> Record:
            damaged: CorruptionError | None = None
            for source in sources:
                try:
                    record = read_chunk(source, chunk_id, buffer.view)
                except CorruptionError as error:
                    damaged = error
                    continue
                if record is not None:
                    return record
            raise damaged or NotFoundError(f"no chunk {chunk_id}")

        with self._sources(self._catalogue.chunks, chunk_id) as sources:
            if not sources:
                raise NotFoundError(f"no chunk {chunk_id}")
            record = await self._threads.io(read)
        assert isinstance(record.body, ChunkBody)
        return ChunkReading(record_info(record), buffer.payload[: record.body.payload_bytes])

    async def _write(self, plan: PutPlan | DeletePlan | JournalPlan, *, use_reserve: bool) -> Placed | None:
        self._volume.check_writable()
        placed = await self._commit.write(plan, use_reserve=use_reserve)
        if self._volume.allocator.current is not self._current:
            self._current = self._volume.allocator.current
            self._upkeep.wake()
        return placed

    def _sources(self, index: CompactIndex, chunk_id: str) -> contextlib.AbstractContextManager[list[Source]]:
        """What the index has under the hash of an id, pinned."""
        return self._volume.pinned(index.find(self._catalogue.hash(chunk_id)))

    def _journal_plan(
        self, states: Sequence[AcceptorState], held: ExitStack | contextlib.AsyncExitStack
    ) -> JournalPlan:
        acceptors = self._catalogue.acceptors
        return JournalPlan(
            states, [held.enter_context(self._sources(acceptors, state.instance.chunk_id)) for state in states]
        )

    def _capacity_bytes(self) -> int:
        total = self._limits.capacity_bytes or self._upkeep.space.total_bytes
        return max(0, total - RESERVED_SUPERBLOCKS * self._limits.superblock_bytes)

    def _available_bytes(self) -> int:
        """What PUTs may still take, of superblocks that exist and of those that can still be made."""
        with self._volume.lock:
            existing = self._volume.allocator.available_bytes()
            missing = max(0, RESERVED_SUPERBLOCKS - self._volume.allocator.empty_superblocks)
        return existing + max(0, self._upkeep.growth_bytes() - missing * self._limits.superblock_bytes)

    def _used_percent(self) -> float:
        capacity = self._capacity_bytes()
        return 100.0 * (1 - min(capacity, self._available_bytes()) / capacity) if capacity else 100.0

    def _state(self) -> DiskState:
        if self._volume.failure is not None:
            return DiskState.READ_ONLY
        percent = self._used_percent()
        if percent > DISK_CRITICAL_PERCENT:
            return DiskState.CRITICAL
        return DiskState.WARNING if percent >= DISK_WARNING_PERCENT else DiskState.HEALTHY
