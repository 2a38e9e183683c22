"""The rules of replay: what supersedes what, and which superblock nothing needs any more."""

from dataclasses import replace
from uuid import UUID

from tests.unit.superblock.building import HEADER
from vstack.core.superblock.catalogue import Catalogue, Superblock
from vstack.core.superblock.entries import Entry
from vstack.core.superblock.header import State
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES
from vstack.core.superblock.record import RecordType


class Disk:
    """A catalogue with a few superblocks; sequences count up by themselves."""

    def __init__(self, *, hash_all_alike: bool = False) -> None:
        self.catalogue = Catalogue(b"k" * 16)
        if hash_all_alike:
            self.catalogue.hash = lambda _: 7  # type: ignore[method-assign,assignment]
        self.sequence = 0
        self.pages: dict[int, int] = {}
        self.written: dict[int, Entry] = {}
        for slot in range(4):
            self.attach(slot, UUID(int=100 + slot))

    def attach(self, slot: int, uuid: UUID) -> None:
        header = replace(HEADER, superblock_uuid=uuid)
        self.catalogue.attach(Superblock(slot, header, DATA_OFFSET))
        self.pages[slot] = DATA_OFFSET // PAGE_BYTES

    def write(
        self, slot: int, kind: RecordType, chunk_id: str, *, epoch: int = 0, buries: Entry | None = None
    ) -> Entry:
        self.sequence += 1
        target = None
        if buries is not None:
            target = next(
                known.uuid
                for known in self.catalogue.superblocks.values()
                if buries.location(known.slot) in self.written and self.written[buries.location(known.slot)] is buries
            )
        pages = 3 if kind is RecordType.CHUNK else 1
        page = self.pages[slot]
        self.pages[slot] += pages
        entry = Entry(self.sequence, kind, page, pages, chunk_id, epoch, target, buries.page if buries else 0)
        self.written[entry.location(slot)] = entry
        self.catalogue.apply(slot, entry, self.identify)
        return entry

    def identify(self, location: int) -> tuple[str, int] | None:
        entry = self.written.get(location)
        return (entry.chunk_id, entry.epoch) if entry is not None else None

    def seal(self, *slots: int) -> None:
        for slot in slots:
            superblock = self.catalogue.superblocks[slot]
            superblock.header = replace(superblock.header, state=State.SEALED)

    def recyclable(self) -> list[int]:
        return [superblock.slot for superblock in self.catalogue.recyclable()]

    def live(self, slot: int) -> tuple[int, int]:
        superblock = self.catalogue.superblocks[slot]
        return superblock.live_records, superblock.live_bytes // PAGE_BYTES


def test_a_tombstone_buries_exactly_its_target() -> None:
    disk = Disk(hash_all_alike=True)
    a, b = disk.write(0, RecordType.CHUNK, "a"), disk.write(0, RecordType.CHUNK, "b")
    assert disk.live(0) == (2, 6)
    disk.write(1, RecordType.TOMBSTONE, "a", buries=a)
    assert not disk.catalogue.is_live(0, a)
    assert disk.catalogue.is_live(0, b)
    assert disk.live(0) == (1, 3)


def test_a_superblock_with_a_live_record_stays() -> None:
    disk = Disk()
    disk.write(0, RecordType.CHUNK, "a")
    disk.seal(0)
    assert disk.recyclable() == []


def test_an_open_superblock_stays() -> None:
    assert Disk().recyclable() == []


def test_a_tombstone_keeps_its_superblock_until_the_buried_one_is_gone() -> None:
    disk = Disk()
    a, b = disk.write(0, RecordType.CHUNK, "a"), disk.write(0, RecordType.CHUNK, "b")
    disk.write(1, RecordType.TOMBSTONE, "a", buries=a)
    disk.seal(0, 1)
    assert disk.recyclable() == []
    disk.write(2, RecordType.TOMBSTONE, "b", buries=b)
    assert disk.recyclable() == [0]
    disk.catalogue.detach(0)
    assert disk.recyclable() == [1]


def test_a_tombstone_of_its_own_superblock_goes_with_it() -> None:
    disk = Disk()
    disk.write(0, RecordType.TOMBSTONE, "a", buries=disk.write(0, RecordType.CHUNK, "a"))
    disk.seal(0)
    assert disk.recyclable() == [0]


def test_a_reused_slot_is_another_superblock() -> None:
    disk = Disk()
    old = disk.write(0, RecordType.CHUNK, "a")
    disk.write(1, RecordType.TOMBSTONE, "a", buries=old)
    disk.catalogue.detach(0)
    disk.attach(0, UUID(int=999))
    new = disk.write(0, RecordType.CHUNK, "a")
    assert new.page == old.page
    late = Entry(99, RecordType.TOMBSTONE, 50, 1, "a", 0, UUID(int=100), old.page)
    disk.catalogue.apply(1, late, disk.identify)
    assert disk.catalogue.is_live(0, new)
    assert not disk.catalogue.superblocks[1].needed


def test_the_newest_state_of_an_instance_counts() -> None:
    disk = Disk(hash_all_alike=True)
    old = disk.write(0, RecordType.ACCEPT, "a")
    other = disk.write(0, RecordType.ACCEPT, "b")
    next_epoch = disk.write(1, RecordType.ACCEPT, "a", epoch=1)
    new = disk.write(1, RecordType.ACCEPT, "a")
    assert not disk.catalogue.is_live(0, old)
    assert disk.catalogue.is_live(0, other)
    assert disk.catalogue.is_live(1, next_epoch)
    assert disk.catalogue.is_live(1, new)


def test_a_learned_state_drops_lower_epochs_and_a_retired_one_all() -> None:
    disk = Disk()
    zero = disk.write(0, RecordType.LEARN, "a", epoch=0)
    two = disk.write(0, RecordType.ACCEPT, "a", epoch=2)
    one = disk.write(1, RecordType.LEARN, "a", epoch=1)
    assert [disk.catalogue.is_live(slot, entry) for slot, entry in ((0, zero), (0, two), (1, one))] == [
        False,
        True,
        True,
    ]
    disk.write(1, RecordType.RETIRE, "a", epoch=0)
    assert not disk.catalogue.is_live(0, two)
    assert not disk.catalogue.is_live(1, one)
    disk.seal(0)
    assert disk.recyclable() == [0]


def test_an_unreadable_promise_gives_way_only_to_a_decision() -> None:
    disk = Disk()
    lost = disk.write(0, RecordType.ACCEPT, "a")
    del disk.written[lost.location(0)]
    disk.write(1, RecordType.ACCEPT, "a")
    assert disk.catalogue.is_live(0, lost)
    disk.write(1, RecordType.LEARN, "a")
    assert not disk.catalogue.is_live(0, lost)


def test_applying_twice_changes_nothing() -> None:
    disk = Disk()
    a = disk.write(0, RecordType.CHUNK, "a")
    state = disk.write(0, RecordType.LEARN, "a")
    disk.catalogue.apply(0, a, disk.identify)
    disk.catalogue.apply(0, state, disk.identify)
    assert disk.live(0) == (2, 4)
    assert len(disk.catalogue.chunks) == len(disk.catalogue.acceptors) == 1


def test_entries_of_missing_superblocks_are_forgotten() -> None:
    disk = Disk()
    a, b = disk.write(0, RecordType.CHUNK, "a"), disk.write(1, RecordType.CHUNK, "b")
    disk.write(1, RecordType.TOMBSTONE, "a", buries=a)
    del disk.catalogue.superblocks[0], disk.catalogue._slots[UUID(int=100)]
    disk.catalogue.forget_missing()
    assert list(disk.catalogue.chunks.items()) == [(disk.catalogue.hash("b"), b.location(1))]
    assert disk.catalogue.superblocks[1].needed == set()
