"""A snapshot is read back whole or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from vstack.core.superblock.index import CompactIndex
from vstack.core.superblock.snapshot import Covered, Snapshot, decode, encode


def snapshot(entries: int = 50) -> Snapshot:
    chunks, acceptors = CompactIndex(), CompactIndex()
    for number in range(entries):
        chunks.add(number * 0x9E3779B97F4A7C15 % 2**64, number + 1)
        acceptors.add(number * 0xC2B2AE3D27D4EB4F % 2**64, number + 1)
    covered = Covered(3, b"u" * 16, False, 65536, (17, 19), 2, 8192, 0, (b"t" * 16,), b"entries")
    return Snapshot("disk", 7, True, 99, (covered,), chunks.dump(), acceptors.dump())


@given(st.integers(0, 300))
def test_a_snapshot_is_read_back(entries: int) -> None:
    wanted = snapshot(entries)
    found = decode(encode(wanted))
    assert found is not None
    assert (found.disk_uuid, found.incarnation, found.clean, found.last_sequence) == ("disk", 7, True, 99)
    assert found.superblocks == wanted.superblocks
    assert bytes(found.chunks) == wanted.chunks
    assert sorted(CompactIndex.load(found.acceptors).items()) == sorted(CompactIndex.load(wanted.acceptors).items())


WHOLE = encode(snapshot())


@given(st.integers(0, len(WHOLE) - 1))
def test_a_torn_snapshot_is_none(length: int) -> None:
    assert decode(WHOLE[:length]) is None


@given(st.integers(24, 8 * len(WHOLE) - 1).filter(lambda bit: bit >= 24 * 8))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    flipped = bytearray(WHOLE)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(flipped)) is None


def test_something_else_is_none() -> None:
    assert decode(b"") is None
    assert decode(b"VSTACKI0" + WHOLE[8:]) is None
