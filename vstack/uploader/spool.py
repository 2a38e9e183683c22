"""The spool: received files while they are worked on.

Names are made here from session ids, never from what a client sent. Files are written off the event loop, one bounded
piece at a time, and flushed as they grow, so the last flush is short and dirty pages stay few. Invariant: a file whose
`finish` did not return is removed, by its writer or by `keep_only` after a crash; one process uses a directory.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from vstack.errors import DiskError, SettingsError, StorageFullError
from vstack.units import MIB
from vstack.uploader.sessions import sync_directory

SYNC_EVERY_BYTES: Final = 32 * MIB
RESERVE_BYTES: Final = 64 * MIB
"""Room that uploads leave on the disk, for sessions and for whoever shares it."""
DISK_THREADS: Final = 4
FILE_MODE: Final = 0o640
"""Of received files: media jobs in a unit of their own have the group's rights (systemd/vstack-uploader.service)."""

T = TypeVar("T")


class Incoming:
    """One file being received."""

    def __init__(self, spool: "Spool", path: Path, descriptor: int) -> None:
        self._spool = spool
        self._path = path
        self._descriptor = descriptor
        self._unsynced_bytes = 0
        self._writing: asyncio.Future[None] | None = None
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Append. Returns when the piece before this one is written: at most one waits in memory."""
        await self._settle()
        self.size_bytes += len(data)
        self._writing = self._spool.submit(lambda: self._append(data))

    async def finish(self) -> None:
        """Returns when all bytes and the name are durable."""
        await self._settle()
        await self._spool.submit(self._seal)

    async def _settle(self) -> None:
        if self._writing is not None:
            # A thread that writes cannot be stopped: the file stays open until it is through, cancelled or not.
            await asyncio.shield(self._writing)
            self._writing = None

    async def abandon(self) -> None:
        """Remove the file. Safe while a write is under way."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._spool.submit(self._remove)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            os.fdatasync(self._descriptor)
            self._unsynced_bytes = 0

    def _seal(self) -> None:
        os.fsync(self._descriptor)
        self._close()
        sync_directory(self._path.parent)

    def _remove(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """The directory of received files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(DISK_THREADS, "spool")
        self._lock = -1

    def prepare(self) -> None:
        """Make the directory and lock it; SettingsError where it cannot be written, or another uploader uses it."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self._directory.parent)
            probe = self._directory / "writable"
            probe.touch()
            probe.unlink()
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise SettingsError(f"another uploader uses {self._directory}") from error
        except OSError as error:
            raise SettingsError(f"cannot write to {self._directory}: {error.strerror}") from error

    def keep_only(self, session_ids: Collection[str]) -> None:
        """Remove every file that belongs to none of these sessions."""
        for path in self._directory.iterdir():
            if path.name not in session_ids:
                path.unlink()

    def path(self, session_id: str) -> Path:
        return self._directory / session_id

    def free_bytes(self) -> int:
        """Room for uploads."""
        return shutil.disk_usage(self._directory).free - RESERVE_BYTES

    def require(self, size_bytes: int) -> None:
        """StorageFullError where `size_bytes` more would not fit."""
        if self.free_bytes() < size_bytes:
            raise StorageFullError("the uploader's disk has no room for this file")

    @contextlib.asynccontextmanager
    async def receiving(self, session_id: str) -> AsyncIterator[Incoming]:
        """A new file to write to; it is removed again if the block raises."""
        path = self.path(session_id)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        incoming = Incoming(self, path, await self.submit(lambda: os.open(path, flags, FILE_MODE)))
        try:
            yield incoming
        except BaseException:
            await incoming.abandon()
            raise

    async def remove(self, session_id: str) -> None:
        """Remove a received file; it may be gone already."""
        await self.submit(lambda: self.path(session_id).unlink(missing_ok=True))

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` in a thread of the spool; OSError becomes StorageFullError or DiskError."""

        def run() -> T:
            try:
                return work()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StorageFullError("the uploader's disk is full") from error
                raise DiskError(f"the uploader's disk failed: {error.strerror}") from error

        return asyncio.get_running_loop().run_in_executor(self._threads, run)

    def close(self) -> None:
        self._threads.shutdown()
        os.close(self._lock)
