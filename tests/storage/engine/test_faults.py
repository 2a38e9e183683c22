"""Disks that fail: writes, flushes, reads, rot, and what is left of superblocks afterwards."""

import asyncio
import contextlib
import random

import pytest

from tests.storage.engine.conftest import Node
from tests.storage.engine.history import Found, History, check
from tests.storage.engine.simulation import SimulatedDisk
from tests.storage.engine.workload import SUPERBLOCK_BYTES, data, live, name, state
from vstack.core.superblock import header
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES, data_end
from vstack.core.superblock.record import AcceptorBody
from vstack.errors import ConflictError, CorruptionError, DiskError, NotFoundError
from vstack.storage.contract import DiskState
from vstack.storage.directio import aligned_buffer
from vstack.storage.engine.volume import READ_ONLY_NAME, Part


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
async def test_a_failed_write_or_flush_turns_the_disk_read_only_for_good(node: Node, call: str) -> None:
    await node.put("a", b"bytes", acceptance=state("a"))
    await node.engine._upkeep.settle()
    node.disk.fail[call] = 0
    before = node.disk.calls["pwritev"]
    writes = [node.put(name(number), data(number, 2)) for number in range(5)]
    results = await asyncio.gather(*writes, node.engine.journal([state("b")]), return_exceptions=True)
    assert all(isinstance(result, DiskError) for result in results)
    assert call == "fdatasync" or node.disk.calls["pwritev"] == before + 1, "it went on writing"
    flushes = node.disk.calls["fdatasync"]
    node.disk.fail.clear()
    for again in (None, node.reopen, node.cut_power):
        if again is not None:
            await again()
        assert node.engine.usage().state is DiskState.READ_ONLY
        with pytest.raises(DiskError, match="read-only"):
            await node.put("c", b"bytes")
        with pytest.raises(DiskError, match="read-only"):
            await node.engine.delete("a")
        assert await node.get("a") == b"bytes"
        assert await node.engine.acceptor("a", 0) == state("a")
        assert await node.engine.acceptor("b", 0) in (None, state("b"))
        for number in range(5):
            with contextlib.suppress(NotFoundError):  # after a restart, what was not acknowledged may be there, whole
                assert await node.get(name(number)) == data(number, 2)
                assert again is not None
        assert node.disk.calls["fdatasync"] in (flushes, 0), "a failed flush was tried again"
    await node.close()
    node.disk.remove(READ_ONLY_NAME)
    await node.open()
    await node.put("c", b"bytes")


async def test_the_mark_may_fail_to_be_written(node: Node) -> None:
    node.disk.fail |= {"fdatasync": 0, "replace": 0}
    with pytest.raises(DiskError):
        await node.put("a", b"bytes")
    assert node.engine.usage().state is DiskState.READ_ONLY


async def test_a_chunk_that_cannot_be_read_is_a_disk_error_and_no_other_is(node: Node) -> None:
    await node.put("a", data(1, 3))
    await node.put("b", data(2, 3))
    file, offset = node.place("a")
    node.disk.bad_pages.add((file, offset // PAGE_BYTES + 1))
    with pytest.raises(DiskError):
        await node.get("a")
    assert await node.get("b") == data(2, 3)
    await node.put("c", b"writes go on")


@pytest.mark.parametrize("where", [100, PAGE_BYTES, PAGE_BYTES + 5000])
async def test_a_flipped_bit_costs_one_chunk_and_a_put_repairs_it(node: Node, where: int) -> None:
    await node.put("a", data(1, 3), acceptance=state("a"))
    await node.put("b", data(2, 3))
    file, offset = node.place("a")
    node.disk.flip(file, offset + where)
    with pytest.raises(CorruptionError):
        await node.get("a")
    assert await node.get("b") == data(2, 3)
    assert (await node.put("a", data(1, 3))).created
    for again in (None, node.cut_power, node.reopen):
        if again is not None:
            await again()
        assert await node.get("a") == data(1, 3)
        assert await node.engine.acceptor("a", 0) == state("a")
        assert node.engine.usage().chunk_count == 2


async def test_a_damaged_chunk_with_a_sound_header_still_refuses_other_bytes(node: Node) -> None:
    await node.put("a", data(1, 3))
    file, offset = node.place("a")
    node.disk.flip(file, offset + PAGE_BYTES)
    with pytest.raises(ConflictError):
        await node.put("a", b"other")


@pytest.mark.parametrize("where", [100, PAGE_BYTES])
async def test_a_damaged_chunk_can_be_deleted(node: Node, where: int) -> None:
    await node.put("a", data(1, 3))
    file, offset = node.place("a")
    node.disk.flip(file, offset + where)
    assert await node.engine.delete("a")
    await node.cut_power()
    with pytest.raises(NotFoundError):
        await node.get("a")
    assert (await node.put("a", b"new")).created


async def test_an_acceptor_that_lost_its_promise_does_not_answer(node: Node) -> None:
    await node.engine.journal([state("a", 5 << 16)])
    file, offset = node.place_of_acceptor("a")
    node.disk.flip(file, offset + 2000)
    for _ in range(2):
        with pytest.raises(CorruptionError):
            await node.engine.acceptor("a", 0)
        with pytest.raises(CorruptionError):
            await node.engine.journal([state("a")])
        await node.reopen()
    await node.engine.journal([state("a", learned=True)])
    assert await node.engine.acceptor("a", 0) == state("a", learned=True)
    assert len((await node.engine.acceptors(None, 10))[0]) == 1


async def test_a_record_behind_an_unwritten_one_is_found(node: Node) -> None:
    """Two PUTs in flight, the later one acknowledged, the earlier one never written: look-ahead steps over the hole."""
    await node.put("a", data(1, 2))
    volume = node.engine._volume
    with volume.lock:
        volume.allocator.reserve(7, 1, use_reserve=False)
    await node.put("b", data(2, 2))
    await node.cut_power()
    assert await node.get("a") == data(1, 2)
    assert await node.get("b") == data(2, 2)
    assert node.engine.usage().quarantined_bytes == 7 * PAGE_BYTES
    await node.put("c", data(3, 2))
    await node.cut_power()
    for number, chunk_id in enumerate("abc", start=1):
        assert await node.get(chunk_id) == data(number, 2)


async def test_a_rotten_header_in_an_open_superblock_does_not_hide_what_follows(node: Node) -> None:
    for number in range(4):
        await node.put(name(number), data(number, 9))
    file, offset = node.place(name(1))
    await node.cut_power()
    node.disk.flip(file, offset + 50)
    node.disk.remove("index.snapshot")
    await node.cut_power()
    for number in (0, 2, 3):
        assert await node.get(name(number)) == data(number, 9)
    with pytest.raises((NotFoundError, CorruptionError)):
        await node.get(name(1))


async def sealed(node: Node) -> str:
    """The name of a sealed superblock file."""
    for number in range(20):
        await node.put(name(number), data(number, 9))
    await node.engine._upkeep.settle()
    superblocks = node.engine._volume.catalogue.superblocks.values()
    slot = next(superblock.slot for superblock in superblocks if superblock.is_sealed)
    return f"{slot:06d}.superblock"


@pytest.mark.parametrize("with_snapshot", [False, True])
@pytest.mark.parametrize("damage", ["footer", "one header", "footer and snapshot"])
async def test_damaged_metadata_costs_nothing(node: Node, damage: str, with_snapshot: bool) -> None:
    file = await sealed(node)
    await node.close()
    if "footer" in damage:
        node.disk.flip(file, data_end(SUPERBLOCK_BYTES) + 70)
    if damage == "one header":
        node.disk.flip(file, 30)
    if "snapshot" in damage:
        node.disk.image.small["index.snapshot"] = b"VSTACKI1 rubbish"
    if not with_snapshot:
        node.disk.image.small.pop("index.snapshot")
    await node.open()
    for number in range(20):
        assert await node.get(name(number)) == data(number, 9)
    assert node.engine.usage().quarantined_bytes == 0
    if damage == "one header":
        copies = [header.decode(node.disk.image.page(file, page)) for page in (0, 1)]
        assert copies[0] == copies[1] is not None


async def test_a_superblock_without_a_header_is_left_alone_and_the_others_serve(node: Node) -> None:
    file = await sealed(node)
    lost = {row.chunk_id for row in (await node.engine.chunks(None, 100))[0] if node.place(row.chunk_id)[0] == file}
    await node.close()
    node.disk.flip(file, 30)
    node.disk.flip(file, PAGE_BYTES + 30)
    before = dict(node.disk.image.pages[file])
    await node.open()
    for number in range(20):
        if name(number) in lost:
            with pytest.raises(NotFoundError):
                await node.get(name(number))
        else:
            assert await node.get(name(number)) == data(number, 9)
    assert node.engine.usage().quarantined_bytes == SUPERBLOCK_BYTES
    for number in range(100, 130):
        await node.put(name(number), data(number, 9))
    assert node.disk.image.pages[file] == before


@pytest.mark.parametrize("age", ["before the deletes", "before the recycling", "of another disk"])
async def test_a_stale_snapshot_neither_hides_nor_resurrects(node: Node, age: str) -> None:
    for number in range(20):
        await node.put(name(number), data(number, 9))
    await node.reopen()
    old = node.disk.image.small["index.snapshot"]
    for number in range(12):
        await node.engine.delete(name(number))
    if age == "before the recycling":
        await node.engine._upkeep.settle()
        for number in range(100, 115):
            await node.put(name(number), data(number, 9))
    if age == "of another disk":
        other = Node()
        await other.open()
        await other.put("x", b"x")
        await other.close()
        old = other.disk.image.small["index.snapshot"]
    rows = (await node.engine.chunks(None, 1000))[0]
    await node.close()
    node.disk.image.small["index.snapshot"] = old
    await node.open()
    assert (await node.engine.chunks(None, 1000))[0] == rows
    for number in range(12):
        with pytest.raises(NotFoundError):
            await node.get(name(number))
    for row in rows:
        await node.get(row.chunk_id)


async def test_any_flipped_bit_never_gives_a_wrong_byte_and_costs_at_most_one_chunk() -> None:
    history = History(SimulatedDisk())
    await live(history)
    rng = random.Random(20)
    image = history.disk.image
    pages = [(file, page) for file, known in image.pages.items() for page, content in known.items() if any(content)]
    changes = len(history.disk.journal)
    for _ in range(150):
        disk = SimulatedDisk(image.copy())
        if rng.random() < 0.5:
            del disk.image.small["index.snapshot"]
        file, page = rng.choice(pages)
        disk.flip(file, page * PAGE_BYTES + rng.randrange(PAGE_BYTES), 1 << rng.randrange(8))
        found = Found(disk)
        check(history, found, changes, excused=True)
        lost = 0
        for register in history.registers():
            try:
                lost += found.value(register) not in history.allowed(register, changes)
            except CorruptionError:
                lost += 1
        assert lost <= 1, f"{lost} lost by a bit in {file} page {page}"


async def test_bit_rot_in_a_free_or_unused_page_is_nobodys_business(node: Node) -> None:
    await node.put("a", b"x")
    node.disk.flip(node.place("a")[0], DATA_OFFSET + 40 * PAGE_BYTES)
    engine = await node.cut_power()
    assert engine.usage().chunk_count == 1


async def test_upkeep_that_fails_turns_the_disk_read_only(node: Node) -> None:
    for number in range(4):
        await node.put(name(number), data(number, 9))
    node.disk.fail["replace"] = 0
    results = [await asyncio.gather(node.put(name(n), data(n, 9)), return_exceptions=True) for n in range(4, 60)]
    assert isinstance(results[-1][0], DiskError)
    assert node.engine.usage().state is DiskState.READ_ONLY
    assert await node.get(name(0)) == data(0, 9)


async def test_after_a_failure_not_even_a_write_that_had_begun_reaches_the_disk(node: Node) -> None:
    volume, body = node.engine._volume, AcceptorBody(state("a"))
    await node.engine._upkeep.settle()
    volume.fail("a cable came loose")
    changes = len(node.disk.journal)
    with pytest.raises(DiskError, match="a cable came loose"):
        volume.append([Part(body, aligned_buffer(PAGE_BYTES))], use_reserve=True)
    assert len(node.disk.journal) == changes
