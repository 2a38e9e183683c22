"""A simulated disk with faults, for the engine to run on.

Fault rules
- A write is volatile until a later fdatasync of its file returns. A power cut keeps any subset of the volatile 4 KiB
  pages, and of one page any subset of its 512-byte sectors; or it garbles the page (a write cut off inside a
  physical sector).
- `create` and `replace` are atomic and durable (the file system's journal); what `prepare` wrote is durable with it.
- An fdatasync may fail: then it made nothing durable, and what was volatile may be kept or lost.
- A write may fail; what it wrote is volatile like any other. A read of a bad page fails with EIO. Bits flip at rest.

`journal` is the sequence of everything that changed the disk; `after_cut` and `Cutter` make the disk as it may
be found after any prefix of it.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from vstack.core.superblock.layout import PAGE_BYTES
from vstack.storage.disk import File, Space
from vstack.storage.engine.threads import Threads

SECTOR_BYTES = 512
SECTORS = PAGE_BYTES // SECTOR_BYTES


@dataclass(frozen=True)
class Write:
    name: str
    page: int
    data: bytes


@dataclass(frozen=True)
class Rot:
    """A durable page changed by itself."""

    name: str
    page: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    name: str


@dataclass(frozen=True)
class Create:
    name: str
    size_bytes: int
    pages: dict[int, bytes]


@dataclass(frozen=True)
class Replace:
    name: str
    data: bytes


@dataclass(frozen=True)
class Remove:
    name: str


Change = Write | Rot | Sync | Create | Replace | Remove


@dataclass
class Image:
    """What is on the platter: sparse pages of superblock files, and small files."""

    sizes: dict[str, int] = field(default_factory=dict)
    pages: dict[str, dict[int, bytes]] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> "Image":
        return Image(dict(self.sizes), {name: dict(pages) for name, pages in self.pages.items()}, dict(self.small))

    def apply(self, change: Change) -> None:
        match change:
            case Write(name=name, page=page, data=data) | Rot(name=name, page=page, data=data):
                self.pages[name][page] = data
            case Create(name=name, size_bytes=size, pages=pages):
                self.sizes[name], self.pages[name] = size, dict(pages)
            case Replace(name=name, data=data):
                self.small[name] = data
            case Remove(name=name):
                self.small.pop(name, None)
            case Sync():
                pass

    def page(self, name: str, page: int) -> bytes:
        return self.pages[name].get(page) or bytes(PAGE_BYTES)


class SimulatedFile:
    def __init__(self, disk: "SimulatedDisk", name: str) -> None:
        self._disk = disk
        self._name = name

    @property
    def size_bytes(self) -> int:
        return self._disk.image.sizes[self._name]

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        page = offset // PAGE_BYTES
        assert offset % PAGE_BYTES == 0
        pages = self._disk.image.pages[self._name]
        for buffer in buffers:
            assert len(buffer) % PAGE_BYTES == 0
            if (page + len(buffer) // PAGE_BYTES) * PAGE_BYTES > self.size_bytes:
                raise OSError(errno.EIO, "beyond the end")
            buffer[:] = bytes(len(buffer))
            for start in range(0, len(buffer), PAGE_BYTES):
                if (self._name, page) in self._disk.bad_pages:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                data = pages.get(page)
                if data is not None:
                    buffer[start : start + PAGE_BYTES] = data
                page += 1

    def pwritev(self, buffers: Sequence[memoryview], offset: int) -> None:
        page = offset // PAGE_BYTES
        assert offset % PAGE_BYTES == 0
        for buffer in buffers:
            assert len(buffer) % PAGE_BYTES == 0
            for start in range(0, len(buffer), PAGE_BYTES):
                self._disk.change(Write(self._name, page, bytes(buffer[start : start + PAGE_BYTES])))
                page += 1
        assert page * PAGE_BYTES <= self.size_bytes
        self._disk.maybe_fail("pwritev")

    def fdatasync(self) -> None:
        self._disk.maybe_fail("fdatasync")
        self._disk.change(Sync(self._name))

    def close(self) -> None:
        pass


class _Unborn:
    """The file that `prepare` writes to: durable as a whole when it gets its name, or not there."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pages: dict[int, bytes] = {}

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        raise NotImplementedError

    def pwritev(self, buffers: Sequence[memoryview], offset: int) -> None:
        data = b"".join(buffers)
        for start in range(0, len(data), PAGE_BYTES):
            self.pages[(offset + start) // PAGE_BYTES] = data[start : start + PAGE_BYTES]

    def fdatasync(self) -> None:
        pass

    def close(self) -> None:
        pass


class SimulatedDisk:
    """A disk of `capacity_bytes`. `fail` names a call and how many of it still succeed before all fail."""

    def __init__(self, image: Image | None = None, *, capacity_bytes: int = 1 << 40) -> None:
        self.image = image or Image()
        self.journal: list[Change] = []
        self.bad_pages: set[tuple[str, int]] = set()
        self.fail: dict[str, int] = {}
        self.calls: dict[str, int] = {"fdatasync": 0, "pwritev": 0, "replace": 0}
        self._base = self.image.copy()
        self._capacity_bytes = capacity_bytes

    def change(self, change: Change) -> None:
        self.journal.append(change)
        self.image.apply(change)

    def maybe_fail(self, call: str) -> None:
        self.calls[call] += 1
        if call in self.fail:
            self.fail[call] -= 1
            if self.fail[call] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def lock(self) -> None:
        pass

    def names(self) -> list[str]:
        return sorted([*self.image.sizes, *self.image.small])

    def open(self, name: str) -> File:
        return SimulatedFile(self, name)

    def create(self, name: str, size_bytes: int, prepare: Callable[[File], None]) -> File:
        if size_bytes > self.space().available_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        unborn = _Unborn(size_bytes)
        prepare(unborn)
        self.change(Create(name, size_bytes, unborn.pages))
        return self.open(name)

    def read(self, name: str) -> bytes | None:
        return self.image.small.get(name)

    def replace(self, name: str, data: bytes) -> None:
        self.maybe_fail("replace")
        self.change(Replace(name, data))

    def remove(self, name: str) -> None:
        self.change(Remove(name))

    def space(self) -> Space:
        return Space(self._capacity_bytes, self._capacity_bytes - sum(self.image.sizes.values()))

    def close(self) -> None:
        pass

    def flip(self, name: str, offset: int, mask: int = 1) -> None:
        """Rot: change bits at rest."""
        page, at = divmod(offset, PAGE_BYTES)
        data = bytearray(self.image.page(name, page))
        data[at] ^= mask
        self.change(Rot(name, page, bytes(data)))

    def after_cut(self, prefix: int, keep: "Keep") -> "SimulatedDisk":
        """The disk as found after a power cut behind `prefix` changes; `keep` decides about every volatile page."""
        return SimulatedDisk(cut(self._base, self.journal[:prefix], keep), capacity_bytes=self._capacity_bytes)


Keep = Callable[[int, Write], int]
"""(which volatile write, the write) -> bit mask of the sectors that reached the disk, or GARBLED."""

ALL = (1 << SECTORS) - 1
GARBLED = -1
EXHAUSTIVE_PAGES = 3


class Cutter:
    """Walks a journal once and gives, at each prefix, the durable image and the volatile writes."""

    def __init__(self, base: Image) -> None:
        self.durable = base.copy()
        self.volatile: list[Write] = []

    def advance(self, change: Change) -> None:
        match change:
            case Write():
                self.volatile.append(change)
            case Sync(name=name):
                for write in self.volatile:
                    if write.name == name:
                        self.durable.apply(write)
                self.volatile = [write for write in self.volatile if write.name != name]
            case _:
                self.durable.apply(change)

    def image(self, keep: Keep) -> Image:
        image = self.durable.copy()
        for index, write in enumerate(self.volatile):
            mask = keep(index, write)
            if mask == ALL:
                image.apply(write)
            elif mask == GARBLED:
                image.apply(Write(write.name, write.page, bytes(byte ^ 0x5A for byte in write.data)))
            elif mask:
                old = image.page(write.name, write.page)
                image.apply(Write(write.name, write.page, _torn(old, write.data, mask)))
        return image

    def variants(self, rng: random.Random, *, samples: int) -> Iterator[Keep]:
        """Ways in which the volatile writes may have fared.

        Of up to three pages every combination of lost, torn or garbled, and kept; of more, telling combinations and
        samples, each also with one page torn or garbled.
        """
        count = len(self.volatile)
        if count == 0:
            yield lambda index, write: ALL
            return
        if count <= EXHAUSTIVE_PAGES:
            for fates in product((0, None, ALL), repeat=count):
                yield _keep([_broken(rng) if fate is None else fate for fate in fates])
            return
        subsets = [[0] * count, [ALL] * count]
        subsets += [[0 if index == lost else ALL for index in range(count)] for lost in (0, count - 1)]
        subsets += [[rng.choice((0, ALL)) for _ in range(count)] for _ in range(samples)]
        for subset in subsets:
            yield _keep(subset)
            kept = [index for index, mask in enumerate(subset) if mask]
            if kept:
                torn = list(subset)
                torn[rng.choice(kept)] = _broken(rng)
                yield _keep(torn)


def cut(base: Image, changes: Sequence[Change], keep: Keep) -> Image:
    cutter = Cutter(base)
    for change in changes:
        cutter.advance(change)
    return cutter.image(keep)


def _broken(rng: random.Random) -> int:
    return rng.choice((GARBLED, rng.randrange(1, ALL)))


def _keep(masks: Sequence[int]) -> Keep:
    return lambda index, write: masks[index]


def _torn(old: bytes, new: bytes, mask: int) -> bytes:
    return b"".join(
        (new if mask >> sector & 1 else old)[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
        for sector in range(SECTORS)
    )


class InlineExecutor(Executor):
    """Runs every call at once in the caller's thread, so that a run can be repeated exactly."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the future carries it to the caller
            future.set_exception(error)
        return future


def inline_threads() -> Threads:
    return Threads(InlineExecutor(), InlineExecutor(), InlineExecutor())
