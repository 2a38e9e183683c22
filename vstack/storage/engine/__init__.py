"""The storage engine: superblock files on one disk behind `vstack.storage.contract.Engine`.

`open_engine` is the way in. Inside: `engine` (the contract), `plans` (what a write does in its thread), `commit`
(group commit), `volume` (files, placing, reading), `upkeep` (seal, recycle, spare, snapshot), `recovery` (opening),
`identity`, `listing`, and `vstack.core.superblock` for everything that is pure.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from vstack.core.superblock.allocator import RESERVED_SUPERBLOCKS
from vstack.core.superblock.layout import MAX_SUPERBLOCK_BYTES, PAGE_BYTES
from vstack.errors import SettingsError
from vstack.storage.directio import DirectDisk, allow_many_files
from vstack.storage.disk import Disk
from vstack.storage.engine.engine import DiskEngine
from vstack.storage.engine.identity import load_or_format
from vstack.storage.engine.recovery import recover
from vstack.storage.engine.superblocks import Birth
from vstack.storage.engine.threads import Threads
from vstack.storage.engine.upkeep import Limits
from vstack.storage.engine.volume import Volume
from vstack.units import GIB, MIB

__all__ = ["DiskEngine", "Sources", "open_engine", "open_on"]

MIN_SUPERBLOCKS: Final = RESERVED_SUPERBLOCKS + 1
MIN_SUPERBLOCK_BYTES: Final = 8 * MIB
"""So that a few of the largest chunks fit; the format itself goes down to 512 KiB."""


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Sources:
    """Clock and randomness, so that tests can make the same bytes twice."""

    clock_ms: Callable[[], int] = _clock_ms
    random_bytes: Callable[[int], bytes] = os.urandom


async def open_engine(
    data_dir: Path,
    *,
    node_id: str | None = None,
    superblock_bytes: int = 1 * GIB,
    capacity_bytes: int = 0,
    io_threads: int = 4,
    may_format: bool = True,
) -> DiskEngine:
    """Open the disk in `data_dir`, recovered and ready for writes; end with `close`.

    An empty directory is formatted where `may_format`. `superblock_bytes` holds for new files. SettingsError, one line,
    where the directory, its identity or its file system is refused.
    """
    limits = Limits(superblock_bytes, capacity_bytes)
    _check(limits)
    allow_many_files()
    disk = DirectDisk(data_dir, may_make=may_format)
    return await open_on(disk, Threads.start(io_threads), limits, node_id=node_id, may_format=may_format)


async def open_on(
    disk: Disk,
    threads: Threads,
    limits: Limits,
    *,
    node_id: str | None = None,
    may_format: bool = True,
    sources: Sources = Sources(),
) -> DiskEngine:
    """The same on any disk and threads; closes both where it fails."""
    try:
        volume = await threads.upkeep(_open_volume, disk, node_id, may_format, sources)
        birth = Birth(UUID(volume.identity.disk_uuid), volume.identity.node_id, sources.random_bytes)
        engine = DiskEngine(volume, threads, birth, limits)
        await engine.start()
    except BaseException as error:
        disk.close()
        threads.stop()
        if isinstance(error, OSError):
            raise SettingsError(f"cannot open the data directory: {error}") from error
        raise
    return engine


def _open_volume(disk: Disk, node_id: str | None, may_format: bool, sources: Sources) -> Volume:
    disk.lock()
    identity = load_or_format(disk, node_id=node_id, may_format=may_format, random_bytes=sources.random_bytes)
    return recover(disk, identity, sources.clock_ms)


def _check(limits: Limits) -> None:
    size = limits.superblock_bytes
    if not MIN_SUPERBLOCK_BYTES <= size <= MAX_SUPERBLOCK_BYTES or size % PAGE_BYTES:
        raise SettingsError(
            f"superblock_bytes must be a multiple of {PAGE_BYTES} from {MIN_SUPERBLOCK_BYTES} to {MAX_SUPERBLOCK_BYTES}"
        )
    if limits.capacity_bytes and limits.capacity_bytes < MIN_SUPERBLOCKS * size:
        raise SettingsError(f"capacity_bytes must hold at least {MIN_SUPERBLOCKS} superblocks of {size} bytes")
