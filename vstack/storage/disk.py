"""What the engine needs of a disk: a dozen calls, so that tests can put a simulated disk underneath.

`vstack.storage.directio` is the real one. All calls block and are safe from several threads.

Promises of a disk
- `pwritev` may be lost in any part by a power cut until a later `fdatasync` of the same file returns.
- `create` and `replace` are atomic and durable when they return: the whole file is there under its name, or nothing.
- Failures are OSError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Space:
    """Of the file system, in bytes: `total` is what the owner of the process can ever use, `available` what is left."""

    total_bytes: int
    available_bytes: int


class File(Protocol):
    """A superblock file, open for direct I/O. Offsets, lengths and buffers are aligned to 4 KiB."""

    @property
    def size_bytes(self) -> int: ...

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all buffers, or OSError."""
        ...

    def pwritev(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Write all buffers, or OSError."""
        ...

    def fdatasync(self) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One data directory. Names are plain file names inside it."""

    def lock(self) -> None:
        """Keep every other process out until `close`; SettingsError where one is in already."""
        ...

    def names(self) -> list[str]: ...

    def open(self, name: str) -> File: ...

    def create(self, name: str, size_bytes: int, prepare: Callable[[File], None]) -> File:
        """A new file with its space allocated; it takes its name, durably, after `prepare` wrote to it."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file whole; None where there is none."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file whole, in place of the one of that name."""
        ...

    def remove(self, name: str) -> None: ...

    def space(self) -> Space: ...

    def close(self) -> None: ...
