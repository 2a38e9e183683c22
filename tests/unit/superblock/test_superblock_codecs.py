"""What is written is read back; what is not whole, or of another superblock, is nothing."""

import struct
from dataclasses import replace
from uuid import UUID

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import MAX_VALUE_BYTES, Instance
from vstack.core.superblock import footer, header, record
from vstack.core.superblock.entries import Entry, EntryLog
from vstack.core.superblock.footer import Footer
from vstack.core.superblock.header import State, SuperblockHeader
from vstack.core.superblock.layout import FOOTER_BYTES, PAGE_BYTES, blocks_for, pack, pages_for, unpack
from vstack.core.superblock.record import AcceptorBody, Body, ChunkBody, Record, RecordType, Stamp, TombstoneBody
from vstack.errors import SettingsError
from vstack.units import MAX_CHUNK_BYTES, MIB

UUID_A, UUID_B = UUID(int=0xA), UUID(int=0xB)
HEADER = SuperblockHeader(
    superblock_uuid=UUID_A,
    disk_uuid=UUID_B,
    node_id="node-1",
    state=State.OPEN,
    sequence=5,
    superblock_bytes=8 * MIB,
    salt=0xDEADBEEF,
)

ids = st.text("abcXYZ019_-", min_size=1, max_size=64)
uuids = st.integers(0, 2**128 - 1).map(lambda number: UUID(int=number))
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**63)
ballots = st.integers(-1, 2**52)


@st.composite
def chunks(draw: st.DrawFn) -> ChunkBody:
    size = draw(st.integers(1, MAX_CHUNK_BYTES))
    crcs = draw(st.lists(u32, min_size=blocks_for(size), max_size=blocks_for(size)))
    index, k, n = draw(st.sampled_from([(-1, 0, 0), (0, 3, 5), (4, 3, 5)]))
    sha256 = draw(st.binary(min_size=32, max_size=32))
    return ChunkBody(draw(ids), draw(u32), index, k, n, size, sha256, tuple(crcs))


@st.composite
def acceptor_states(draw: st.DrawFn) -> AcceptorState:
    names = draw(st.sampled_from([1, 3, 5]).flatmap(lambda n: st.lists(ids, min_size=n, max_size=n, unique=True)))
    value = draw(st.none() | st.binary(max_size=MAX_VALUE_BYTES))
    return AcceptorState(
        Instance(draw(ids), draw(u32), Config(draw(u32), tuple(names))),
        draw(ballots),
        draw(ballots),
        value,
        draw(st.booleans()),
        draw(st.booleans()),
    )


bodies: st.SearchStrategy[Body] = st.one_of(
    chunks(), st.builds(TombstoneBody, ids, uuids, u32), acceptor_states().map(AcceptorBody)
)
stamps = st.builds(
    Stamp,
    superblock_uuid=st.just(UUID_A),
    salt=st.just(HEADER.salt),
    sequence=u64,
    stable=u64,
    incarnation=u32,
    batch_index=st.integers(0, 3),
    batch_count=st.integers(4, 512),
    written_at_ms=u64,
)
headers = st.builds(
    SuperblockHeader,
    superblock_uuid=uuids,
    disk_uuid=uuids,
    node_id=ids,
    state=st.sampled_from(State),
    sequence=u64,
    superblock_bytes=st.sampled_from([512 * 1024, 8 * MIB, 4096 * MIB]),
    salt=u32,
    compat=u32,
    ro_compat=u32,
    cluster_uuid=uuids,
)


def encoded(body: Body, stamp: Stamp) -> bytearray:
    page = bytearray(b"\xff" * PAGE_BYTES)
    record.encode_into(memoryview(page), body, stamp)
    return page


@given(body=bodies, stamp=stamps)
def test_a_record_is_read_back(body: Body, stamp: Stamp) -> None:
    assert record.decode(encoded(body, stamp), UUID_A, HEADER.salt) == Record(stamp, body)


@given(body=bodies, stamp=stamps, at=st.integers(0, 8 * PAGE_BYTES - 1))
def test_a_flipped_bit_in_a_record_header_is_noticed(body: Body, stamp: Stamp, at: int) -> None:
    page = encoded(body, stamp)
    page[at // 8] ^= 1 << at % 8
    assert record.decode(page, UUID_A, HEADER.salt) is None


@given(body=bodies, stamp=stamps)
def test_a_record_of_another_life_is_none_of_ours(body: Body, stamp: Stamp) -> None:
    page = encoded(body, stamp)
    assert record.decode(page, UUID_B, HEADER.salt) is None
    assert record.decode(page, UUID_A, HEADER.salt ^ 1) is None
    assert record.decode(bytes(PAGE_BYTES), UUID_A, HEADER.salt) is None


@given(data=st.binary(min_size=1, max_size=200_000), at=st.integers(0))
def test_block_checksums_notice_every_flipped_bit(data: bytes, at: int) -> None:
    body = ChunkBody("c", 0, -1, 0, 0, len(data), bytes(32), record.block_crcs(memoryview(data)))
    assert record.is_intact(body, memoryview(data))
    flipped = bytearray(data)
    flipped[at % len(data)] ^= 0x10
    assert not record.is_intact(body, memoryview(flipped))
    assert not record.is_intact(body, memoryview(data)[:-1])


@given(wanted=headers)
def test_a_superblock_header_is_read_back(wanted: SuperblockHeader) -> None:
    assert header.decode(wanted.encode()) == wanted


@given(wanted=headers, at=st.integers(0, 8 * PAGE_BYTES - 1))
def test_a_flipped_bit_in_a_superblock_header_is_noticed(wanted: SuperblockHeader, at: int) -> None:
    page = bytearray(wanted.encode())
    page[at // 8] ^= 1 << at % 8
    assert header.decode(page) is None


def test_an_unknown_incompatible_feature_names_the_version_that_is_needed() -> None:
    with pytest.raises(SettingsError, match=r"features 0x4.*format version 3 is needed \(this one reads version 1\)"):
        header.decode(replace(HEADER, incompat=4, version=3).encode())


def test_unknown_compatible_features_are_kept() -> None:
    known = header.decode(replace(HEADER, compat=0x80, version=2).encode())
    assert known is not None
    assert known.compat == 0x80


@pytest.mark.parametrize("field", [{"state": 9}, {"superblock_bytes": 1}])
def test_a_header_with_impossible_fields_is_none(field: dict[str, int]) -> None:
    page = bytearray(HEADER.encode())
    if "state" in field:
        page[14] = field["state"]
    else:
        page[84:92] = (1).to_bytes(8, "little")
    struct.pack_into("<I", page, 8, crc32c(memoryview(page)[12:]))
    assert header.decode(page) is None


def test_the_newer_of_two_valid_copies_counts() -> None:
    newer = replace(HEADER, sequence=6)
    assert header.newest([HEADER, newer]) == header.newest([newer, HEADER]) == newer
    assert header.newest([None, HEADER]) == HEADER
    assert header.newest([None, None]) is None


entries = st.builds(
    Entry,
    sequence=u64,
    type=st.sampled_from([RecordType.CHUNK, RecordType.ACCEPT, RecordType.LEARN, RecordType.RETIRE]),
    page=st.integers(16, 2**20 - 1),
    pages=st.integers(1, 513),
    chunk_id=ids,
    epoch=u32,
) | st.builds(
    Entry,
    sequence=u64,
    type=st.just(RecordType.TOMBSTONE),
    page=st.integers(16, 2**20 - 1),
    pages=st.just(1),
    chunk_id=ids,
    target_uuid=uuids,
    target_page=st.integers(16, 2**20 - 1),
)


@given(some=st.lists(entries), more=st.lists(entries))
def test_packed_entries_are_read_back_and_continued(some: list[Entry], more: list[Entry]) -> None:
    log = EntryLog.load(EntryLog(some).packed())
    for entry in more:
        log.append(entry)
    assert list(log) == some + more


@given(body=bodies, stamp=stamps, page=st.integers(16, 2**20 - 1))
def test_an_entry_keeps_what_replay_needs(body: Body, stamp: Stamp, page: int) -> None:
    entry = Entry.of(Record(stamp, body), page)
    assert list(EntryLog([entry])) == [entry]
    assert (entry.sequence, entry.type, entry.pages) == (stamp.sequence, record.type_of(body), body.pages)


@given(known=st.lists(entries, unique_by=lambda entry: entry.sequence), at=st.integers(0))
def test_a_footer_is_read_back_and_every_flipped_bit_noticed(known: list[Entry], at: int) -> None:
    wanted = Footer(tuple(sorted(known, key=lambda entry: entry.sequence)), 1 << 20, 4096)
    page = footer.encode(HEADER, wanted)
    assert page is not None
    assert len(page) % PAGE_BYTES == 0
    padded = page + bytes(FOOTER_BYTES - len(page))
    assert footer.decode(padded, HEADER) == wanted
    assert footer.decode(padded, replace(HEADER, superblock_uuid=UUID_B)) is None
    used = 64 + len(EntryLog(sorted(known, key=lambda entry: (entry.chunk_id, entry.sequence))).packed())
    flipped = bytearray(padded)
    flipped[at % used] ^= 1
    assert footer.decode(flipped, HEADER) is None


def test_a_footer_holds_the_records_of_a_typical_superblock() -> None:
    """1 GiB of 600 KiB chunks with an acceptance and a LEARN each, and as many for chunks stored elsewhere."""
    video = "550e8400-e29b-41d4-a716-446655440000"
    known = tuple(
        Entry(n, RecordType.CHUNK, 16 + n, 1, f"{video}-chunk-{n // 5:03d}", target_uuid=None) for n in range(1750 * 5)
    )
    assert footer.encode(HEADER, Footer(known, 0, 0)) is not None


def test_entries_that_do_not_fit_make_no_footer() -> None:
    known = tuple(Entry(n, RecordType.ACCEPT, 16 + n, 1, f"{n}-{'x' * 50}") for n in range(8000))
    assert footer.encode(HEADER, Footer(known, 0, 0)) is None


@given(slot=st.integers(0, 2**20 - 1), page=st.integers(0, 2**20 - 1), pages=st.integers(0, 1023))
def test_a_location_packs_into_fifty_bits(slot: int, page: int, pages: int) -> None:
    packed = pack(slot, page, pages)
    assert packed < 1 << 50
    assert unpack(packed) == (slot, page, pages)


def test_record_pages() -> None:
    assert [pages_for(size) for size in (0, 1, PAGE_BYTES, PAGE_BYTES + 1, MAX_CHUNK_BYTES)] == [1, 2, 2, 3, 513]
