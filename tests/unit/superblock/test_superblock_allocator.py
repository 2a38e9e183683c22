"""Where records go, and what a PUT may not take."""

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.superblock.building import HEADER, SUPERBLOCK_BYTES
from vstack.core.superblock.allocator import RESERVED_SUPERBLOCKS, Allocator
from vstack.core.superblock.catalogue import Superblock
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES, data_end

ROOM = (data_end(SUPERBLOCK_BYTES) - DATA_OFFSET) // PAGE_BYTES


def superblock(slot: int) -> Superblock:
    return Superblock(slot, replace(HEADER, superblock_uuid=UUID(int=slot)), DATA_OFFSET)


def allocator(ready: int, free: int = 0) -> Allocator:
    made = Allocator(100)
    made.ready.extend(superblock(slot) for slot in range(ready))
    made.free.update({slot: superblock(slot) for slot in range(ready, ready + free)})
    return made


def test_reservations_follow_one_another() -> None:
    log = allocator(3)
    first, second = log.reserve(3, 2, use_reserve=False), log.reserve(1, 1, use_reserve=False)
    assert first is not None
    assert second is not None
    assert (first.offset, first.first_sequence) == (DATA_OFFSET, 100)
    assert (second.offset, second.first_sequence) == (first.end, 102)
    assert first.superblock is second.superblock is log.current


def test_stable_never_reaches_what_is_outstanding() -> None:
    log = allocator(3)
    first, second = log.reserve(1, 1, use_reserve=False), log.reserve(1, 1, use_reserve=False)
    assert first is not None
    assert second is not None
    assert (first.stable, second.stable, log.stable) == (99, 99, 99)
    log.settle(second)
    assert log.stable == 99
    log.settle(first)
    assert log.stable == 101


def test_a_record_that_does_not_fit_goes_into_the_next_superblock() -> None:
    log = allocator(4)
    log.reserve(ROOM - 1, 1, use_reserve=False)
    moved = log.reserve(2, 1, use_reserve=False)
    assert moved is not None
    assert (moved.superblock.slot, moved.offset) == (1, DATA_OFFSET)


def test_a_put_leaves_the_reserve() -> None:
    log = allocator(0, RESERVED_SUPERBLOCKS)
    log.current = superblock(50)
    assert log.admits(ROOM, use_reserve=False)
    log.reserve(ROOM, 1, use_reserve=False)
    assert not log.admits(1, use_reserve=False)
    assert log.available_bytes() == 0
    assert log.admits(1, use_reserve=True)


def test_once_the_reserve_is_touched_puts_wait_until_it_is_whole_again() -> None:
    log = allocator(RESERVED_SUPERBLOCKS)
    assert log.reserve(1, 1, use_reserve=True) is not None
    assert log.reserve(1, 1, use_reserve=False) is None
    assert log.available_bytes() == 0
    log.free[9] = superblock(9)
    assert log.reserve(1, 1, use_reserve=False) is not None


def test_an_admitted_write_waits_until_a_superblock_is_opened() -> None:
    log = allocator(0, 3)
    assert log.admits(1, use_reserve=False)
    assert not log.can_place(1, use_reserve=False)
    assert log.reserve(1, 1, use_reserve=False) is None


def test_low_water_and_idleness() -> None:
    log = allocator(4)
    first, second = log.reserve(2, 1, use_reserve=False), log.reserve(2, 1, use_reserve=False)
    assert first is not None
    assert second is not None
    used = first.superblock
    log.settle(second)
    assert log.low_water(used) == first.offset
    log.reserve(ROOM - 3, 1, use_reserve=False)
    assert log.current is not used
    assert not log.is_idle(used)
    log.settle(first)
    assert log.low_water(used) == used.append_offset
    assert log.is_idle(used)


@given(
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(1, ROOM), st.booleans()), max_size=40),
)
def test_puts_never_take_the_reserve_and_records_never_overlap(
    ready: int, free: int, writes: list[tuple[int, bool]]
) -> None:
    log = allocator(ready, free)
    taken: dict[int, int] = {}
    for pages, use_reserve in writes:
        reservation = log.reserve(pages, 1, use_reserve=use_reserve)
        if reservation is None:
            continue
        slot = reservation.superblock.slot
        assert reservation.offset == taken.get(slot, DATA_OFFSET)
        assert reservation.end <= data_end(SUPERBLOCK_BYTES)
        taken[slot] = reservation.end
        if not use_reserve:
            assert log.empty_superblocks >= RESERVED_SUPERBLOCKS
