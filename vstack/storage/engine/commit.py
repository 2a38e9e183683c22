"""Group commit: all writes in flight share one fdatasync, then become visible together, then are answered.

A write is placed in the log by an I/O thread and then waits for the flusher, one task that calls fdatasync again and
again. What is placed while a flush runs joins the next one. The flusher waits a little for writes that are being
placed at that moment, because sharing costs them less than a flush of their own.

Invariants: the index changes only after the flush that covers the change returned; after a failed write or flush,
everything that was not yet answered fails and nothing is written any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from vstack.core.superblock.layout import PAGE_BYTES
from vstack.core.superblock.record import ACCEPTOR_TYPES
from vstack.errors import DiskError
from vstack.storage.contract import Counters
from vstack.storage.engine.plans import Known, Plan
from vstack.storage.engine.threads import Threads
from vstack.storage.engine.volume import Part, Placed, Volume

GATHER_S: Final = 0.004
"""How long a placed write waits at most for others that are being placed."""

_STRANGER: Final = ("", -1)
"""Under the hash, but not looked at by the plan: another id, added since, which the lock of this id does not cover."""

log = structlog.get_logger()

OpenSuperblock = Callable[[int, bool], Awaitable[None]]
"""(pages, use_reserve): makes room for a write; StorageFullError where there is none to make."""


@dataclass(slots=True)
class _Pending:
    placed: Placed
    known: Known
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """The only way into the log."""

    def __init__(self, volume: Volume, threads: Threads, open_superblock: OpenSuperblock) -> None:
        self.flushes = 0
        self.flushed_writes = 0
        self.flushed_bytes = 0
        self._volume = volume
        self._threads = threads
        self._open_superblock = open_superblock
        self._placing = 0
        self._pending: list[_Pending] = []
        self._changed = asyncio.Event()

    @property
    def counters(self) -> Counters:
        return Counters(self.flushes, self.flushed_writes, self.flushed_bytes)

    @property
    def is_busy(self) -> bool:
        return bool(self._placing or self._pending)

    async def write(self, plan: Plan, *, use_reserve: bool) -> Placed | None:
        """Carry a plan out; its records are durable and in the index on return. None where it wrote nothing.

        What the plan raises; StorageFullError; DiskError.
        """
        placed = await self._place(plan, use_reserve=use_reserve)
        if placed is None:
            return None
        pending = _Pending(placed, plan.known)
        self._pending.append(pending)
        self._changed.set()
        await pending.done
        return placed

    async def run(self) -> None:
        """The flusher; until it is cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._pending:
                await self._gather()
                group, self._pending = self._pending, []
                await self._flush(group)

    async def _place(self, plan: Plan, *, use_reserve: bool) -> Placed | None:
        def attempt(parts: list[Part] | None) -> tuple[list[Part], Placed | None]:
            parts = plan.parts() if parts is None else parts
            return parts, self._volume.append(parts, use_reserve=use_reserve) if parts else None

        parts: list[Part] | None = None
        while True:
            self._placing += 1
            try:
                parts, placed = await self._threads.io(attempt, parts)
            finally:
                self._placing -= 1
                self._changed.set()
            if placed is not None or not parts:
                return placed
            await self._open_superblock(sum(part.body.pages for part in parts), use_reserve)

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(GATHER_S, self._changed.set)
        try:
            while self._placing and loop.time() < deadline.when():
                self._changed.clear()
                await self._changed.wait()
        finally:
            deadline.cancel()

    async def _flush(self, group: list[_Pending]) -> None:
        group.sort(key=lambda pending: pending.placed.reservation.first_sequence)
        slots = sorted({pending.placed.reservation.superblock.slot for pending in group})
        try:
            await self._threads.flush(self._volume.flush, slots)
        except DiskError as error:
            log.error("the disk turned read-only", reason=str(error))  # noqa: TRY400 - the reason says it all
            for pending in group:
                _answer(pending, error)
            return
        self.flushes += len(slots)
        for pending in group:
            self._apply(pending)
            _answer(pending, None)

    def _apply(self, pending: _Pending) -> None:
        reservation = pending.placed.reservation
        slot = reservation.superblock.slot
        with self._volume.lock:
            self._volume.allocator.settle(reservation)
        known = pending.known
        for entry in pending.placed.entries:
            self._volume.catalogue.apply(slot, entry, lambda location: known.get(location, _STRANGER))
            if entry.type in ACCEPTOR_TYPES:
                known[entry.location(slot)] = (entry.chunk_id, entry.epoch)
        self.flushed_writes += len(pending.placed.entries)
        self.flushed_bytes += reservation.pages * PAGE_BYTES


def _answer(pending: _Pending, error: DiskError | None) -> None:
    if pending.done.done():
        return
    if error is None:
        pending.done.set_result(None)
    else:
        pending.done.set_exception(DiskError(str(error)))
