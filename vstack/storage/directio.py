"""The real disk: a directory on a file system that can do direct I/O. The only module that opens with O_DIRECT.

There is no fallback to buffered I/O: a file system without O_DIRECT is refused when the directory is opened. Direct I/O
keeps checksums honest (they are of what the disk holds, not the page cache) and memory flat; it is no durability, so
every acknowledgement waits for fdatasync.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from vstack.core.superblock.layout import PAGE_BYTES
from vstack.errors import SettingsError
from vstack.storage.disk import File, Space

LOCK_NAME: Final = "lock"
NEW_SUFFIX: Final = ".new"
_PROBE_NAME: Final = "probe" + NEW_SUFFIX

_STATX_DIOALIGN: Final = 0x2000
_STATX_BYTES: Final = 256
_STATX_MASK_OFFSET, _STATX_MEM_ALIGN_OFFSET, _STATX_OFFSET_ALIGN_OFFSET = 0, 152, 156
_AT_EMPTY_PATH: Final = 0x1000


def aligned_buffer(size_bytes: int) -> memoryview:
    """Zeroed memory that starts at a page, as direct I/O needs it."""
    return memoryview(mmap.mmap(-1, size_bytes))


class DirectFile:
    """A file open with O_DIRECT."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        _expect(os.preadv(self._descriptor, buffers, offset), buffers, "read")

    def pwritev(self, buffers: Sequence[memoryview], offset: int) -> None:
        _expect(os.pwritev(self._descriptor, buffers, offset), buffers, "write")

    def fdatasync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class DirectDisk:
    """The directory `path`, made where it `may_make` it. SettingsError, one line, where it cannot be opened."""

    def __init__(self, path: Path, *, may_make: bool = False) -> None:
        self._path = path
        try:
            if may_make:
                path.mkdir(parents=True, exist_ok=True)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SettingsError(f"cannot open the data directory {path}: {error.strerror}") from error
        self._lock = -1

    def lock(self) -> None:
        try:
            self._lock = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(f"another process has {self._path} open") from error
        except OSError as error:
            raise SettingsError(f"cannot lock the data directory {self._path}: {error.strerror}") from error
        self._probe()

    def names(self) -> list[str]:
        with os.scandir(self._directory) as entries:
            return sorted(entry.name for entry in entries)

    def open(self, name: str) -> File:
        return DirectFile(self._open(name, os.O_RDWR))

    def create(self, name: str, size_bytes: int, prepare: Callable[[File], None]) -> File:
        unnamed = name + NEW_SUFFIX
        descriptor = self._open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        file = DirectFile(descriptor)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            prepare(file)
            os.fsync(descriptor)
            os.rename(unnamed, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)
        except BaseException:
            file.close()
            raise
        return file

    def read(self, name: str) -> bytes | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def replace(self, name: str, data: bytes) -> None:
        unnamed = name + NEW_SUFFIX
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(unnamed, flags, 0o600, dir_fd=self._directory), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unnamed, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._directory)

    def space(self) -> Space:
        """As df counts: what only root may use belongs to nobody."""
        stat = os.fstatvfs(self._directory)
        available = stat.f_bavail * stat.f_frsize
        return Space((stat.f_blocks - stat.f_bfree) * stat.f_frsize + available, available)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        os.close(self._directory)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_DIRECT | os.O_CLOEXEC, 0o600, dir_fd=self._directory)

    def _probe(self) -> None:
        """Write and read one page with O_DIRECT, and ask for the alignment that the device needs."""
        page = aligned_buffer(PAGE_BYTES)
        try:
            descriptor = self._open(_PROBE_NAME, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                alignment = _direct_alignment(descriptor)
                os.pwritev(descriptor, [page], 0)
                os.preadv(descriptor, [page], 0)
            finally:
                os.close(descriptor)
                self.remove(_PROBE_NAME)
        except OSError as error:
            reason = "its file system has no O_DIRECT" if error.errno == errno.EINVAL else error.strerror
            raise SettingsError(f"cannot use the data directory {self._path}: {reason}") from error
        if alignment > PAGE_BYTES:
            raise SettingsError(f"{self._path} needs direct I/O aligned to {alignment} bytes, above {PAGE_BYTES}")


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: every superblock stays open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _expect(done_bytes: int, buffers: Sequence[memoryview], what: str) -> None:
    wanted = sum(len(buffer) for buffer in buffers)
    if done_bytes != wanted:
        raise OSError(errno.EIO, f"short {what}: {done_bytes} of {wanted} bytes")


def _direct_alignment(descriptor: int) -> int:
    """What statx says (Linux 6.1 and newer), else one page."""
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx is None or statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, answer) != 0:
        return PAGE_BYTES

    def word(offset: int) -> int:
        return int.from_bytes(answer.raw[offset : offset + 4], "little")

    if not word(_STATX_MASK_OFFSET) & _STATX_DIOALIGN:
        return PAGE_BYTES
    if not word(_STATX_OFFSET_ALIGN_OFFSET):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return max(word(_STATX_MEM_ALIGN_OFFSET), word(_STATX_OFFSET_ALIGN_OFFSET))
