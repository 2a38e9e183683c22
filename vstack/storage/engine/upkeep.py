"""Work off the hot path, one task: seal, recycle, keep superblocks ready, zero-fill one ahead, write snapshots.

Invariants
- A superblock is open on disk, both header copies, before a record goes in; it is sealed when nothing is in flight.
- A recycled superblock is free on disk before the next one is looked at, so a tombstone outlives what it buried.
- Nothing here is needed for safety at the next start: whatever was not finished is finished, or done again.
"""

import asyncio
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, ParamSpec

import msgspec
import structlog

from vstack.core.superblock.allocator import RESERVED_SUPERBLOCKS
from vstack.core.superblock.catalogue import Superblock
from vstack.core.superblock.entries import EntryLog
from vstack.core.superblock.footer import Footer
from vstack.core.superblock.header import COMPAT_FILLED, State, SuperblockHeader
from vstack.core.superblock.layout import DATA_OFFSET
from vstack.core.superblock.snapshot import encode as encode_snapshot
from vstack.errors import DiskError, StorageFullError
from vstack.storage.disk import Space
from vstack.storage.engine import checkpoint, identity, superblocks
from vstack.storage.engine.recovery import SNAPSHOT_NAME
from vstack.storage.engine.superblocks import Birth
from vstack.storage.engine.threads import Threads
from vstack.storage.engine.volume import Volume
from vstack.units import MIB

REFRESH_S: Final = 5.0
"""How old the figures of the file system may be."""

SNAPSHOT_EVERY_BYTES: Final = 256 * MIB
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

P = ParamSpec("P")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """`capacity_bytes` 0 is the whole file system."""

    superblock_bytes: int
    capacity_bytes: int
    snapshot_every_bytes: int = SNAPSHOT_EVERY_BYTES


class Upkeep:
    """`written_bytes` tells how much was flushed so far, `is_busy` whether clients are waiting right now."""

    def __init__(
        self,
        volume: Volume,
        threads: Threads,
        birth: Birth,
        limits: Limits,
        *,
        written_bytes: Callable[[], int],
        is_busy: Callable[[], bool],
    ) -> None:
        self.space = Space(0, 0)
        self._volume = volume
        self._allocator = volume.allocator
        self._threads = threads
        self._birth = birth
        self._limits = limits
        self._written_bytes = written_bytes
        self._is_busy = is_busy
        self._changed = asyncio.Event()
        self._opening = asyncio.Lock()
        self._settling = asyncio.Lock()
        self._stopping = False
        self._snapshot_at_bytes = 0
        self._superblocks = len(volume.files)

    def wake(self) -> None:
        """Something may have become sealable or recyclable, or a ready superblock was taken."""
        self._changed.set()

    def stop(self) -> None:
        """Let `run` return after the step that it is in."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            self._changed.clear()
            await self.settle()
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._changed.wait()
            except TimeoutError:
                await self.refresh_space()

    async def settle(self) -> None:
        """Do whatever there is to do now."""
        async with self._settling:
            try:
                while not self._stopping and self._volume.failure is None and await self._step():
                    pass
            except DiskError:
                return  # somebody else has met the failure, and reported it
            except OSError as error:
                self._give_up(error)

    async def prepare(self) -> None:
        """Before the first write: the reserve and one superblock more are there, as far as they fit."""
        await self.refresh_space()
        if self._volume.failure is not None:
            return
        try:
            while self._allocator.empty_superblocks <= RESERVED_SUPERBLOCKS and await self._create():
                pass
        except OSError as error:
            self._give_up(error)

    async def open_superblock(self, pages: int, use_reserve: bool) -> None:
        """Make room for a write that found none; StorageFullError where there is none to make, DiskError."""
        async with self._opening:
            self._volume.check_writable()
            try:
                while not self._allocator.admits(pages, use_reserve=use_reserve):
                    if not await self._create():
                        raise StorageFullError("no superblock is left that this write may take")
                if not self._allocator.can_place(pages, use_reserve=use_reserve):
                    await self._open_one()
                if not self._allocator.can_place(pages, use_reserve=use_reserve):
                    raise StorageFullError("the superblocks are too small for this write")
            except OSError as error:
                self._give_up(error)
                self._volume.check_writable()

    async def snapshot(self, *, clean: bool) -> None:
        """Write the index snapshot. OSError."""
        taken = checkpoint.take(self._volume, clean=clean)
        written = self._written_bytes()
        await self._threads.upkeep(lambda: self._volume.disk.replace(SNAPSHOT_NAME, encode_snapshot(taken)))
        self._snapshot_at_bytes = written

    async def refresh_space(self) -> None:
        self.space = await self._threads.upkeep(self._volume.disk.space)

    def growth_bytes(self) -> int:
        """What superblocks that do not exist yet could take."""
        size = self._limits.superblock_bytes
        room = self.space.available_bytes
        if self._limits.capacity_bytes:
            room = min(room, self._limits.capacity_bytes - self._superblocks * size)
        return max(0, room // size) * size

    async def _step(self) -> bool:
        """Do the most urgent thing; False where there is nothing to do."""
        for superblock in list(self._volume.catalogue.superblocks.values()):
            if self._is_sealable(superblock):
                await self._seal(superblock)
                return True
        for superblock in self._volume.catalogue.recyclable():
            if not self._volume.pins[superblock.slot]:
                await self._recycle(superblock)
                return True
        async with self._opening:
            if self._allocator.empty_superblocks <= RESERVED_SUPERBLOCKS and await self._create():
                return True
        if not self._allocator.ready and self._allocator.free:
            await self._fill_one()
            async with self._opening:
                if not self._allocator.ready and self._allocator.free:
                    await self._open_one()
            return True
        if self._written_bytes() - self._snapshot_at_bytes >= self._limits.snapshot_every_bytes:
            await self.snapshot(clean=False)
            return True
        return False

    def _is_sealable(self, superblock: Superblock) -> bool:
        with self._volume.lock:
            return (
                superblock.header.state is State.OPEN
                and superblock not in self._allocator.ready
                and self._allocator.is_idle(superblock)
            )

    async def _write(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Change the disk in the upkeep thread, unless it is read-only by now. DiskError, OSError."""
        self._volume.check_writable()
        await self._threads.upkeep(call, *args, **kwargs)

    async def _seal(self, superblock: Superblock) -> None:
        """Footer first, then the header that says there is one."""
        entries = sorted(superblock.entries, key=lambda entry: entry.sequence)
        footer = Footer(tuple(entries), superblock.append_offset, superblock.quarantined_bytes)
        sealed = replace(superblock.header, state=State.SEALED, sequence=self._take_sequence())
        file = self._volume.files[superblock.slot]

        def seal() -> None:
            superblocks.write_footer(file, superblock.header, footer)
            superblocks.write_headers(file, sealed)

        await self._write(seal)
        superblock.header = sealed
        superblock.entries = EntryLog()

    async def _recycle(self, superblock: Superblock) -> None:
        header = self._birth.free(self._take_sequence(), superblock.header.superblock_bytes, filled=True)
        await self._write(superblocks.write_headers, self._volume.files[superblock.slot], header)
        self._volume.catalogue.detach(superblock.slot)
        self._add_free(superblock.slot, header)
        log.info("recycled a superblock", slot=superblock.slot)

    async def _create(self) -> bool:
        """Make one more free superblock; False where there is no room for it."""
        await self.refresh_space()
        if not self.growth_bytes():
            return False
        slot, size = self._superblocks, self._limits.superblock_bytes
        header = self._birth.free(self._take_sequence(), size, filled=False)
        disk = self._volume.disk

        def create() -> None:
            name = superblocks.name_of(slot)
            self._volume.files[slot] = disk.create(name, size, lambda file: superblocks.write_headers(file, header))
            identity.store(disk, msgspec.structs.replace(self._volume.identity, superblocks=slot + 1))

        try:
            await self._write(create)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self.space = replace(self.space, available_bytes=0)
            return False
        self._superblocks += 1
        self.space = replace(self.space, available_bytes=self.space.available_bytes - size)
        self._add_free(slot, header)
        return True

    async def _open_one(self) -> None:
        """Let records into a free superblock, a filled one if there is one."""
        superblock = max(self._allocator.free.values(), key=lambda free: (free.header.filled, -free.slot))
        header = self._birth.open(self._take_sequence(), superblock.header)
        await self._write(superblocks.write_headers, self._volume.files[superblock.slot], header)
        opened = Superblock(superblock.slot, header, DATA_OFFSET)
        self._volume.catalogue.attach(opened)
        with self._volume.lock:
            del self._allocator.free[superblock.slot]
            self._allocator.ready.append(opened)

    async def _fill_one(self) -> None:
        """Zero-fill a free superblock in pieces, unless one is filled already or one is wanted meanwhile."""
        free = self._allocator.free
        if any(superblock.header.filled for superblock in free.values()):
            return
        superblock = min(free.values(), key=lambda candidate: candidate.slot)
        file, size = self._volume.files[superblock.slot], superblock.header.superblock_bytes
        for offset in superblocks.fill_offsets(size):
            started = time.monotonic()
            async with self._opening:
                if self._stopping or superblock.slot not in free or self._allocator.ready:
                    return
                await self._write(superblocks.fill_piece, file, offset, size)
            if self._is_busy():
                await asyncio.sleep(time.monotonic() - started)
        superblock.header = replace(superblock.header, compat=superblock.header.compat | COMPAT_FILLED)

    def _add_free(self, slot: int, header: SuperblockHeader) -> None:
        with self._volume.lock:
            self._allocator.free[slot] = Superblock(slot, header, DATA_OFFSET)

    def _take_sequence(self) -> int:
        with self._volume.lock:
            return self._allocator.take_sequence()

    def _give_up(self, error: OSError) -> None:
        self._volume.fail(f"upkeep failed: {error}")
        log.error("the disk turned read-only", reason=self._volume.failure)
