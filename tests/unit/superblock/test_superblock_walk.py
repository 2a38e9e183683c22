"""The recovery walk goes on behind whatever it cannot make sense of; what was perhaps never acknowledged is settled."""

from dataclasses import replace

import pytest

from tests.unit.superblock.building import HEADER, SUPERBLOCK_BYTES, LogBuilder, acceptance, chunk
from vstack.core.superblock.layout import DATA_OFFSET, PAGE_BYTES, data_end
from vstack.core.superblock.record import ChunkBody, is_intact
from vstack.core.superblock.settle import Settled, settle
from vstack.core.superblock.walk import Found, Gap, Walk, walk


def ids(found: tuple[Found, ...]) -> list[str]:
    return [each.record.chunk_id for each in found]


def walked(log: LogBuilder, **options: bool) -> Walk:
    return walk(log.read, log.header, **options)


def settled(log: LogBuilder) -> Settled:
    def intact(_: int, found: Found) -> bool:
        assert isinstance(found.record.body, ChunkBody)
        start = found.offset + PAGE_BYTES
        return is_intact(found.record.body, memoryview(log.image)[start : start + found.record.body.payload_bytes])

    return settle([walked(log)], intact)[0]


def test_an_empty_log() -> None:
    assert walked(LogBuilder()) == Walk((), (), DATA_OFFSET)


def test_records_lead_to_one_another() -> None:
    log = LogBuilder()
    offsets = [log.add(chunk("a", bytes(9000)), bytes(9000)), log.add(acceptance("b")), log.add(chunk("c"))]
    result = walked(log)
    assert ids(result.records) == ["a", "b", "c"]
    assert [found.offset for found in result.records] == offsets
    assert result.gaps == ()
    assert result.append_offset == log.offset


@pytest.mark.parametrize("how", ["flipped", "unreadable"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_invalid_record_does_not_end_the_walk(how: str, which: int) -> None:
    log = LogBuilder()
    offsets = [log.add(chunk("a", bytes(9000)), bytes(9000)), log.add(chunk("b")), log.add(chunk("c"))]
    if how == "flipped":
        log.damage(offsets[which])
    else:
        log.unreadable.add(offsets[which])
    result = walked(log)
    assert ids(result.records) == [chunk_id for chunk_id in ("a", "b", "c") if chunk_id != "ab"[which]]
    assert result.gaps == (Gap(offsets[which], offsets[which + 1] - offsets[which]),)
    assert result.append_offset == log.offset


@pytest.mark.parametrize("before", [[], ["a"]])
def test_a_hole_that_was_never_written_does_not_end_the_walk(before: list[str]) -> None:
    log = LogBuilder()
    for chunk_id in before:
        log.add(chunk(chunk_id))
    hole = log.offset
    log.skip(3)
    log.add(chunk("b"))
    result = walked(log)
    assert ids(result.records) == [*before, "b"]
    assert result.gaps == (Gap(hole, 3 * PAGE_BYTES),)


def test_a_gap_may_be_as_long_as_the_rest() -> None:
    log = LogBuilder()
    log.add(chunk("a"))
    log.offset = data_end(SUPERBLOCK_BYTES) - 2 * PAGE_BYTES
    log.add(chunk("last"))
    assert ids(walked(log).records) == ["a", "last"]


def test_without_look_ahead_the_first_invalid_record_ends_the_log() -> None:
    log = LogBuilder()
    log.add(chunk("a"))
    log.skip(1)
    log.add(chunk("b"))
    assert ids(walked(log, look_ahead=False).records) == ["a"]


def test_a_lower_sequence_is_a_leftover() -> None:
    log = LogBuilder()
    log.add(chunk("a"), sequence=20)
    log.add(chunk("old"), sequence=19)
    log.add(chunk("b"), sequence=21)
    result = walked(log)
    assert ids(result.records) == ["a", "b"]
    assert [gap.length_bytes for gap in result.gaps] == [2 * PAGE_BYTES]


def test_a_record_never_reaches_into_the_footer() -> None:
    log = LogBuilder()
    log.offset = data_end(SUPERBLOCK_BYTES) - PAGE_BYTES
    log.add(chunk("too long"))
    assert walked(log).records == ()


def test_a_record_inside_a_payload_is_no_record() -> None:
    """A client may upload what looks like records, but it does not know the salt."""
    forged = LogBuilder(header=replace(HEADER, salt=HEADER.salt ^ 1))
    forged.sequence = 1000
    at = forged.add(chunk("forged"))
    payload = bytes(forged.image[at : at + 2 * PAGE_BYTES])
    log = LogBuilder()
    lost = log.add(chunk("a", payload), payload)
    log.damage(lost)
    log.add(chunk("b"))
    assert ids(walked(log).records) == ["b"]


def test_a_torn_payload_that_was_never_acknowledged_does_not_count() -> None:
    log = LogBuilder()
    log.add(chunk("a"))
    torn = log.add(chunk("torn"))
    log.image[torn + PAGE_BYTES] ^= 1
    log.add(chunk("b"))
    result = settled(log)
    assert ids(result.records) == ["a", "b"]
    assert result.quarantined == (Gap(torn, 2 * PAGE_BYTES),)
    assert result.append_offset == log.offset


def test_a_payload_that_rotted_after_it_was_acknowledged_stays() -> None:
    log = LogBuilder()
    rotten = log.add(chunk("rotten"))
    log.image[rotten + PAGE_BYTES] ^= 1
    log.add(chunk("b"), stable=log.sequence)
    assert ids(settled(log).records) == ["rotten", "b"]


def test_stability_is_of_one_incarnation() -> None:
    """A torn record must not come back to life when a later process makes later sequences durable."""
    log = LogBuilder()
    torn = log.add(chunk("torn"), incarnation=1)
    log.image[torn + PAGE_BYTES] ^= 1
    log.add(chunk("b"), incarnation=2)
    log.add(chunk("c"), incarnation=2, stable=log.sequence)
    assert ids(settled(log).records) == ["b", "c"]


def test_a_batch_counts_whole_or_not_at_all() -> None:
    log = LogBuilder()
    log.add(chunk("a"), batch=(0, 2))
    log.damage(log.add(acceptance("a"), batch=(1, 2)))
    log.add(chunk("b"), batch=(0, 2))
    log.add(acceptance("b"), batch=(1, 2))
    result = settled(log)
    assert ids(result.records) == ["b", "b"]
    assert sum(gap.length_bytes for gap in result.quarantined) == 3 * PAGE_BYTES


def test_a_stable_batch_survives_the_loss_of_a_member() -> None:
    log = LogBuilder()
    log.add(chunk("a"), batch=(0, 2))
    log.damage(log.add(acceptance("a"), batch=(1, 2)))
    log.add(chunk("b"), stable=log.sequence)
    assert ids(settled(log).records) == ["a", "b"]


def test_reading_ahead_saves_reads() -> None:
    log = LogBuilder()
    for number in range(32):
        log.add(acceptance(f"c{number}"))
    assert len(walked(log).records) == 32
    assert log.reads <= 4
