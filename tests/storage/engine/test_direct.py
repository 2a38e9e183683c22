"""The engine on a real directory: direct I/O or nothing, one process per directory."""

import asyncio
import errno
import fcntl
import os
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import vstack
from tests.storage.engine.workload import name, state
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.errors import NotFoundError, SettingsError
from vstack.storage.directio import DirectDisk, aligned_buffer
from vstack.storage.engine import DiskEngine, open_engine
from vstack.units import MAX_CHUNK_BYTES, MIB

SIZE = 16 * MIB


async def open_small(path: Path, **options: Any) -> DiskEngine:
    return await open_engine(path, superblock_bytes=SIZE, capacity_bytes=10 * SIZE, **options)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[DiskEngine]:
    engine = await open_small(tmp_path / "data")
    yield engine
    await engine.close()


async def put(engine: DiskEngine, chunk_id: str, body: bytes) -> None:
    async with engine.buffer() as buffer:
        buffer.payload[: len(body)] = body
        await engine.put(chunk_id, buffer, len(body), acceptance=state(chunk_id))


def bodies(count: int) -> dict[str, bytes]:
    rng = random.Random(5)
    sizes = [1, 4096, 100_001, MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES]
    return {name(number): rng.randbytes(sizes[number % len(sizes)]) for number in range(count)}


async def test_everything_is_there_after_restarts(tmp_path: Path) -> None:
    wanted = bodies(20)
    engine = await open_small(tmp_path, node_id="n")
    await asyncio.gather(*(put(engine, chunk_id, body) for chunk_id, body in wanted.items()))
    await engine.delete(name(7))
    await engine.close()
    (tmp_path / "index.snapshot").unlink()
    for _ in range(2):
        engine = await open_small(tmp_path)
        for chunk_id, body in wanted.items():
            assert await engine.acceptor(chunk_id, 0) == state(chunk_id)
            if chunk_id == name(7):
                with pytest.raises(NotFoundError):
                    await engine.get(chunk_id).__aenter__()
                continue
            async with engine.get(chunk_id) as reading:
                assert reading.payload == body
        await engine.close()


def descriptors() -> dict[int, str]:
    """The open files of this process."""
    return {int(link.name): str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


async def test_every_superblock_is_open_for_direct_io(engine: DiskEngine, tmp_path: Path) -> None:
    await put(engine, "a", b"x" * MAX_CHUNK_BYTES)
    ours = [number for number, path in descriptors().items() if path.endswith(".superblock") and str(tmp_path) in path]
    assert len(ours) >= 3
    assert all(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_DIRECT for number in ours)


async def test_a_file_system_without_direct_io_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without_direct(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", without_direct)
    with pytest.raises(SettingsError, match="has no O_DIRECT") as refused:
        await open_small(tmp_path)
    assert "\n" not in str(refused.value)
    assert DirectDisk(tmp_path).names() == ["lock"]


async def test_a_second_process_is_kept_out(engine: DiskEngine, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another process"):
        await open_small(tmp_path / "data")
    await put(engine, "a", b"undisturbed")


async def test_the_lock_goes_with_the_engine(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        engine = await open_small(tmp_path)
        assert engine.identity.incarnation == incarnation
        await engine.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"superblock_bytes": 4 * MIB}, "superblock_bytes"),
        ({"superblock_bytes": SIZE + 1}, "superblock_bytes"),
        ({"superblock_bytes": 8 << 30}, "superblock_bytes"),
        ({"superblock_bytes": SIZE, "capacity_bytes": 2 * SIZE}, "capacity_bytes"),
    ],
)
async def test_impossible_sizes_are_refused(tmp_path: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        await open_engine(tmp_path / "data", **options)
    assert not (tmp_path / "data").exists()


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot open the data directory"):
        await open_small(tmp_path / "file" / "data")
    with pytest.raises(SettingsError, match="cannot open the data directory"):
        await open_small(tmp_path / "missing", may_format=False)


async def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = len(descriptors())
    for _ in range(3):
        await (await open_small(tmp_path)).close()
    (tmp_path / "000001.superblock").unlink()
    with pytest.raises(SettingsError, match="missing"):
        await open_small(tmp_path)
    assert len(descriptors()) == before


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    disk = DirectDisk(tmp_path)

    def fails(_: object) -> None:
        raise OSError(errno.EIO, "no")

    with pytest.raises(OSError, match="no"):
        disk.create("000000.superblock", MIB, fails)
    assert disk.names() == ["000000.superblock.new"]
    disk.close()


def test_a_short_read_is_an_error(tmp_path: Path) -> None:
    disk = DirectDisk(tmp_path)
    file = disk.create("f", PAGE_BYTES, lambda file: file.pwritev([aligned_buffer(PAGE_BYTES)], 0))
    with pytest.raises(OSError, match="short read"):
        file.preadv([aligned_buffer(2 * PAGE_BYTES)], 0)
    assert file.size_bytes == PAGE_BYTES
    file.close()
    disk.close()


def test_only_one_module_opens_with_o_direct() -> None:
    root = Path(vstack.__file__).parent
    users = [path.relative_to(root) for path in root.rglob("*.py") if re.search(r"\bO_DIRECT\b", _code(path))]
    assert users == [Path("storage/directio.py")]


def _code(path: Path) -> str:
    return re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)


async def test_a_large_burst_shares_flushes(engine: DiskEngine) -> None:
    body = os.urandom(100_000)
    before = engine.counters()
    await asyncio.gather(*(put(engine, name(number), body) for number in range(64)))
    after = engine.counters()
    assert after.flushed_writes - before.flushed_writes == 128
    assert after.flushes - before.flushes < 64
