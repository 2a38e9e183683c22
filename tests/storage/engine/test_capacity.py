"""A disk that fills up: PUTs stop before the reserve, deletes go on, and room comes back."""

import asyncio

import pytest

from tests.storage.engine.conftest import Node
from tests.storage.engine.simulation import SimulatedDisk
from tests.storage.engine.workload import SUPERBLOCK_BYTES, data, name, state
from vstack.core.superblock.allocator import RESERVED_SUPERBLOCKS
from vstack.errors import NotFoundError, StorageFullError
from vstack.storage.contract import DiskState
from vstack.storage.engine.upkeep import Limits

PAGES = 9


async def fill(node: Node, *, first: int = 0) -> int:
    """The number of chunks that fit."""
    for number in range(first, 1000):
        try:
            await node.put(name(number), data(number, PAGES))
        except StorageFullError:
            return number - first
    raise AssertionError("never full")


async def journal_until_full(node: Node, *, retired: bool = False) -> int:
    """The number of states that were taken."""
    for number in range(10_000):
        try:
            await node.engine.journal([state(name(number), retired=retired)])
        except StorageFullError:
            return number
    raise AssertionError("never full")


async def test_usage_grows_from_nothing_to_all(small: Node) -> None:
    capacity = (6 - RESERVED_SUPERBLOCKS) * SUPERBLOCK_BYTES
    usage = small.engine.usage()
    assert (usage.used_percent, usage.capacity_bytes, usage.state) == (0.0, capacity, DiskState.HEALTHY)
    seen = []
    for number in range(1000):
        try:
            await small.put(name(number), data(number, PAGES))
        except StorageFullError:
            break
        usage = small.engine.usage()
        seen.append(usage.used_percent)
        assert usage.live_bytes <= usage.used_bytes
        assert usage.chunk_count == number + 1
    assert seen == sorted(seen)
    assert seen[-1] <= 100
    assert small.engine.usage().state in (DiskState.WARNING, DiskState.CRITICAL)
    assert len(seen) >= 15


async def test_what_is_there_already_is_confirmed_on_a_full_disk(small: Node) -> None:
    await fill(small)
    assert not (await small.put(name(0), data(0, PAGES))).created


async def test_deletes_and_retirements_go_on_and_make_room(small: Node) -> None:
    count = await fill(small)
    await small.engine.journal([state(name(0), retired=True)])
    for number in range(1, count):
        assert await small.engine.delete(name(number))
    await small.engine._upkeep.settle()
    assert small.engine.usage().used_percent < 85
    assert await fill(small, first=500) >= 6
    await small.cut_power()
    assert await small.get(name(0)) == data(0, PAGES)
    assert await small.engine.acceptor(name(0), 0) == state(name(0), retired=True)
    with pytest.raises(NotFoundError):
        await small.get(name(1))


async def test_plain_acceptances_leave_the_reserve_to_retirements(small: Node) -> None:
    await fill(small)
    accepted = await journal_until_full(small)
    for number in range(accepted):
        await small.engine.journal([state(name(number), retired=True)])
    assert small.engine.usage().state is not DiskState.READ_ONLY


async def test_the_reserve_ends_too_and_says_so(small: Node) -> None:
    count = await fill(small)
    await journal_until_full(small, retired=True)
    assert await small.get(name(count - 1)) == data(count - 1, PAGES)


async def test_many_puts_at_the_edge_never_take_the_reserve(small: Node) -> None:
    results = await asyncio.gather(
        *(small.put(name(number), data(number, PAGES)) for number in range(60)), return_exceptions=True
    )
    stored = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
    assert all(isinstance(results[number], StorageFullError) for number in range(60) if number not in stored)
    assert 15 <= len(stored) < 60
    assert small.engine._volume.allocator.empty_superblocks >= RESERVED_SUPERBLOCKS
    for number in stored:
        assert await small.get(name(number)) == data(number, PAGES)


async def test_the_file_system_is_the_limit_where_none_is_set() -> None:
    node = Node(disk=SimulatedDisk(capacity_bytes=5 * SUPERBLOCK_BYTES), limits=Limits(SUPERBLOCK_BYTES, 0))
    await node.open()
    assert node.engine.usage().capacity_bytes == 3 * SUPERBLOCK_BYTES
    assert await fill(node) >= 10
    assert len(node.disk.image.sizes) == 5
    assert await node.engine.delete(name(0))
    await node.close()


async def test_a_file_system_too_small_for_a_chunk_still_opens() -> None:
    node = Node(disk=SimulatedDisk(capacity_bytes=SUPERBLOCK_BYTES), limits=Limits(SUPERBLOCK_BYTES, 0))
    await node.open()
    assert node.engine.usage().state is DiskState.CRITICAL
    with pytest.raises(StorageFullError):
        await node.put("a", b"x")
    await node.close()


async def test_a_record_larger_than_a_superblock_is_refused(node: Node) -> None:
    with pytest.raises(StorageFullError):
        await node.put("a", data(0, 60))
    await node.put("b", data(0, 6))


async def test_freed_superblocks_are_used_again_with_another_uuid(node: Node) -> None:
    seen = set()
    for number in range(60):
        outcome = await node.put(name(number), data(number, PAGES))
        seen.add(outcome.info.superblock_id)
        if number >= 3:
            await node.engine.delete(name(number - 3))
        await node.engine._upkeep.settle()
    assert len(seen) >= 12
    assert len(node.disk.image.sizes) <= 8
    await node.cut_power()
    assert node.engine.usage().chunk_count == 3
