"""What the engine promises to the storage service, on a disk that works."""

import asyncio
import hashlib

import pytest

from tests.storage.engine.conftest import Node
from tests.storage.engine.workload import CONFIG, data, name, state
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.messages import MAX_VALUE_BYTES, Instance
from vstack.core.superblock.layout import MAX_BATCH_RECORDS
from vstack.errors import ConflictError, InvalidRequestError, NotFoundError, TooLargeError
from vstack.storage.engine.engine import PUT_BUFFERS
from vstack.units import MAX_CHUNK_BYTES


async def test_a_chunk_is_served_as_it_was_put(node: Node) -> None:
    for size in (1, 4095, 4096, 4097, 65536, 65537, 180_000):
        body = hashlib.shake_128(str(size).encode()).digest(size)
        outcome = await node.put(f"c{size}", body, epoch=3)
        assert outcome.created
        assert await node.get(f"c{size}") == body
        info = await node.engine.head(f"c{size}")
        assert info == outcome.info
        assert info is not None
        assert (info.size_bytes, info.checksum, info.epoch) == (size, hashlib.sha256(body).hexdigest(), 3)


async def test_what_was_put_is_there_after_a_restart_and_after_a_power_cut(node: Node) -> None:
    for number in range(12):
        await node.put(name(number), data(number, 9), acceptance=state(name(number)))
    for again in (node.reopen, node.cut_power, node.cut_power, node.reopen):
        await again()
        for number in range(12):
            assert await node.get(name(number)) == data(number, 9)
            assert await node.engine.acceptor(name(number), 0) == state(name(number))
    assert node.engine.identity.incarnation == 5


async def test_the_same_bytes_again_create_nothing(node: Node) -> None:
    first = await node.put("a", b"bytes")
    changes = len(node.disk.journal)
    again = await node.put("a", b"bytes")
    assert not again.created
    assert again.info == first.info
    assert len(node.disk.journal) == changes


async def test_the_same_bytes_again_still_make_the_acceptance_durable(node: Node) -> None:
    await node.put("a", b"bytes")
    assert not (await node.put("a", b"bytes", acceptance=state("a"))).created
    await node.cut_power()
    assert await node.engine.acceptor("a", 0) == state("a")


async def test_other_bytes_under_the_same_id_conflict(node: Node) -> None:
    await node.put("a", b"bytes")
    with pytest.raises(ConflictError):
        await node.put("a", b"other", acceptance=state("a"))
    assert await node.get("a") == b"bytes"
    assert await node.engine.acceptor("a", 0) is None


@pytest.mark.parametrize("present", [False, True])
async def test_a_wrong_checksum_stores_nothing(node: Node, present: bool) -> None:
    if present:
        await node.put("a", b"bytes")
    changes = len(node.disk.journal)
    with pytest.raises(InvalidRequestError, match="checksum"):
        await node.put("a", b"bytes", expected_checksum="0" * 64, acceptance=state("a"))
    assert len(node.disk.journal) == changes
    assert (await node.engine.head("a") is not None) == present


async def test_a_right_checksum_is_welcome(node: Node) -> None:
    assert (await node.put("a", b"x", expected_checksum=hashlib.sha256(b"x").hexdigest())).created


async def test_sizes_outside_the_limits(node: Node) -> None:
    async with node.engine.buffer() as buffer:
        with pytest.raises(InvalidRequestError):
            await node.engine.put("a", buffer, 0)
        with pytest.raises(TooLargeError):
            await node.engine.put("a", buffer, MAX_CHUNK_BYTES + 1)


async def test_of_many_puts_of_one_id_at_once_one_creates_it(node: Node) -> None:
    outcomes = await asyncio.gather(*(node.put("a", b"same") for _ in range(8)))
    assert sum(outcome.created for outcome in outcomes) == 1
    results = await asyncio.gather(*(node.put("b", bytes([n])) for n in range(8)), return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 7
    assert node.engine.usage().chunk_count == 2


async def test_a_deleted_chunk_is_gone_for_good(node: Node) -> None:
    await node.put("a", b"bytes")
    assert await node.engine.delete("a")
    assert not await node.engine.delete("a")
    for again in (node.reopen, node.cut_power):
        with pytest.raises(NotFoundError):
            await node.get("a")
        assert await node.engine.head("a") is None
        await again()


async def test_a_deleted_id_may_be_put_again_with_other_bytes(node: Node) -> None:
    for body in (b"one", b"two", b"three"):
        assert (await node.put("a", body)).created
        await node.cut_power()
        assert await node.get("a") == body
        await node.engine.delete("a")


async def test_an_id_that_was_never_there(node: Node) -> None:
    with pytest.raises(NotFoundError):
        await node.get("a")
    assert await node.engine.head("a") is None
    assert await node.engine.acceptor("a", 0) is None


async def test_ids_with_the_same_hash_are_told_apart(node: Node) -> None:
    node.engine._volume.catalogue.hash = lambda _: 7  # type: ignore[method-assign, assignment]
    for number in range(5):
        await node.put(name(number), data(number, 2), acceptance=state(name(number)))
    await node.engine.delete(name(2))
    await node.engine.journal([state(name(3), learned=True), state(name(4), retired=True)])
    assert not await node.engine.delete(name(2))
    for number in (0, 1, 3, 4):
        assert await node.get(name(number)) == data(number, 2)
    with pytest.raises(NotFoundError):
        await node.get(name(2))
    assert await node.engine.acceptor(name(1), 0) == state(name(1))
    assert await node.engine.acceptor(name(3), 0) == state(name(3), learned=True)
    assert await node.engine.acceptor(name(4), 0) == state(name(4), retired=True)
    with pytest.raises(ConflictError):
        await node.put(name(0), b"other")


async def test_acceptor_states_of_every_shape_are_kept(node: Node) -> None:
    states = [
        AcceptorState(Instance("a", 0, CONFIG), promised=1 << 16),
        AcceptorState(Instance("b", 5, CONFIG), 9 << 16, 1 << 16, b"x" * MAX_VALUE_BYTES),
        AcceptorState(Instance("c", 0, CONFIG), accepted_value=b"", learned=True),
        AcceptorState(Instance("d", 0, CONFIG), retired=True),
    ]
    await node.engine.journal(states)
    await node.engine.journal([])
    await node.cut_power()
    for wanted in states:
        assert await node.engine.acceptor(wanted.instance.chunk_id, wanted.instance.epoch) == wanted
    assert sorted((await node.engine.acceptors(None, 100))[0], key=str) == sorted(states, key=str)


async def test_a_closed_epoch_is_answered_by_what_closed_it_and_never_reopened(node: Node) -> None:
    learned = state("a", epoch=1, learned=True)
    await node.engine.journal([state("a")])
    await node.engine.journal([learned])
    assert await node.engine.acceptor("a", 0) == learned
    for late in (state("a"), state("a", 1 << 16, epoch=1)):
        with pytest.raises(ConflictError, match="closed"):
            await node.engine.journal([late])
        with pytest.raises(ConflictError, match="closed"):
            await node.put("a", b"bytes", acceptance=late)
    assert await node.engine.head("a") is None
    retired = state("a", epoch=0, retired=True)
    await node.engine.journal([retired])
    await node.cut_power()
    assert await node.engine.acceptor("a", 1) == retired
    assert (await node.engine.acceptors(None, 100))[0] == [retired]


async def test_a_batch_keeps_its_own_order(node: Node) -> None:
    await node.engine.journal([state("a"), state("a", 1 << 16), state("a", 1 << 16, learned=True)])
    with pytest.raises(ConflictError):
        await node.engine.journal([state("b", learned=True), state("b", 1 << 16)])
    assert await node.engine.acceptor("a", 0) == state("a", 1 << 16, learned=True)
    assert await node.engine.acceptor("b", 0) is None


async def test_a_batch_has_a_limit(node: Node) -> None:
    with pytest.raises(InvalidRequestError):
        await node.engine.journal([state(name(number)) for number in range(MAX_BATCH_RECORDS + 1)])


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
async def test_the_listing_pages_through_everything_once(node: Node, limit: int) -> None:
    for number in range(30):
        await node.put(name(number), data(number, number % 7 + 1), acceptance=state(name(number)))
    for number in range(0, 30, 4):
        await node.engine.delete(name(number))
    for again in (None, node.reopen, node.cut_power):
        if again is not None:
            await again()
        rows, cursor = await node.engine.chunks(None, limit)
        while cursor is not None:
            assert len(cursor) <= 64
            more, cursor = await node.engine.chunks(cursor, limit)
            assert len(more) <= limit
            rows += more
        assert sorted(row.chunk_id for row in rows) == [name(n) for n in range(30) if n % 4]
        assert all([row == await node.engine.head(row.chunk_id) for row in rows])
        states, cursor = await node.engine.acceptors(None, limit)
        while cursor is not None:
            more_states, cursor = await node.engine.acceptors(cursor, limit)
            states += more_states
        assert sorted(states, key=str) == sorted((state(name(n)) for n in range(30)), key=str)


async def test_the_listing_of_one_video(node: Node) -> None:
    for chunk_id in ("v-chunk-000", "v-chunk-001-frag-2", "vv-chunk-000", "w-chunk-000"):
        await node.put(chunk_id, b"x", fragment_index=2 if "frag" in chunk_id else -1)
    rows, cursor = await node.engine.chunks(None, 10, video_id="v")
    assert cursor is None
    assert [(row.chunk_id, row.fragment_index) for row in rows] == [("v-chunk-000", -1), ("v-chunk-001-frag-2", 2)]


@pytest.mark.parametrize("cursor", ["", "x", "1", "1-2-3", "-", "zz-1", "f" * 70])
async def test_a_cursor_that_is_none(node: Node, cursor: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor"):
        await node.engine.chunks(cursor, 10)


async def test_writes_in_flight_share_a_flush(node: Node) -> None:
    before = node.engine.counters()
    await asyncio.gather(*(node.put(name(number), data(number, 1)) for number in range(24)))
    after = node.engine.counters()
    assert after.flushed_writes - before.flushed_writes == 24
    assert after.flushes - before.flushes <= 6
    assert after.flushed_bytes - before.flushed_bytes == 24 * 2 * 4096


async def test_a_cancelled_put_leaves_nothing_half_done(node: Node) -> None:
    task = asyncio.create_task(node.put("a", data(1, 4)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome = await node.put("a", data(1, 4))
    assert node.engine.usage().chunk_count == 1
    assert await node.get("a") == data(1, 4)
    assert outcome.info.chunk_id == "a"


async def test_buffers_are_bounded(node: Node) -> None:
    async with asyncio.timeout(10):
        held = [node.engine.buffer() for _ in range(PUT_BUFFERS)]
        buffers = [await buffer.__aenter__() for buffer in held]
        late = asyncio.create_task(node.put("a", b"x"))
        await asyncio.sleep(0)
        assert not late.done()
        assert len({id(buffer) for buffer in buffers}) == PUT_BUFFERS
        for buffer in held:
            await buffer.__aexit__(None, None, None)
        await late


async def test_unused_bytes_of_a_buffer_do_not_reach_the_disk(node: Node) -> None:
    await node.put("a", b"secret" * 1000)
    await node.engine.delete("a")
    await node.put("b", b"x" * 5)
    file, offset = node.place("b")
    assert node.disk.image.page(file, offset // 4096 + 1) == b"x" * 5 + bytes(4091)
