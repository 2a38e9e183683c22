"""The packer's rules, for any sequence of fragments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.fmp4 import PackedChunk
from vstack.core.fmp4.packer import DEFAULT_LIMITS, Fragment, Limits, Packer
from vstack.errors import InvalidMediaError
from vstack.units import MAX_CHUNK_BYTES

LIMITS = Limits(chunk_bytes=100, chunk_us=10_000_000, segment_us=6_000_000)

fragments = st.lists(
    st.builds(
        Fragment,
        data=st.integers(12, 350).map(lambda size: bytes(i % 251 for i in range(size))),
        duration_us=st.one_of(st.integers(0, 4_000_000), st.integers(0, 45_000_000), st.just(2_000_000)),
        random_access=st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def pack(init: bytes, given_fragments: list[Fragment], limits: Limits = LIMITS) -> list[PackedChunk]:
    packer = Packer(init, limits)
    chunks = [chunk for fragment in given_fragments for chunk in packer.push(fragment)]
    return [*chunks, packer.finish()]


@given(st.binary(min_size=1, max_size=100), fragments)
def test_rules_hold_for_any_fragments(init: bytes, given_fragments: list[Fragment]) -> None:
    chunks = pack(init, given_fragments)

    assert b"".join(chunk.data for chunk in chunks) == init + b"".join(f.data for f in given_fragments)
    assert all(1 <= len(chunk.data) <= LIMITS.chunk_bytes for chunk in chunks)
    assert all(0 <= chunk.duration_ms <= 10_000 for chunk in chunks)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk.init_size_bytes for chunk in chunks] == [len(init)] + [0] * (len(chunks) - 1)
    total_us = sum(f.duration_us for f in given_fragments)
    assert sum(chunk.duration_ms for chunk in chunks) == (total_us + 500) // 1000


@given(st.binary(min_size=1, max_size=100), fragments)
def test_segments_start_at_every_random_access_point_after_six_seconds_and_nowhere_else(
    init: bytes, given_fragments: list[Fragment]
) -> None:
    expected, offset, segment_us = [0], len(init), 0
    for fragment in given_fragments:
        if fragment.random_access and segment_us >= LIMITS.segment_us:
            expected.append(offset)
            segment_us = 0
        offset += len(fragment.data)
        segment_us += fragment.duration_us

    starts, offset, segments = [], 0, []
    for chunk in pack(init, given_fragments):
        if chunk.segment not in segments:
            segments.append(chunk.segment)
            starts.append(offset)
        offset += len(chunk.data)
    assert starts == expected
    assert segments == list(range(len(expected)))


@given(fragments)
def test_memory_is_one_chunk(given_fragments: list[Fragment]) -> None:
    packer = Packer(b"init", LIMITS)
    out = 0
    pushed = 4
    for fragment in given_fragments:
        pushed += len(fragment.data)
        for chunk in packer.push(fragment):
            assert not chunk.last
            out += len(chunk.data)
        assert 0 < pushed - out <= LIMITS.chunk_bytes


def test_a_chunk_is_filled_to_the_last_byte_and_second() -> None:
    exact = [Fragment(bytes(48), 5_000_000, random_access=False)] * 4
    assert [len(chunk.data) for chunk in pack(b"init", exact)] == [100, 96]
    over = [Fragment(bytes(49), 5_000_000, random_access=False)] * 4
    assert [len(chunk.data) for chunk in pack(b"init", over)] == [53, 98, 49]
    slow = [Fragment(bytes(12), 5_000_001, random_access=False)] * 3
    assert [chunk.duration_ms for chunk in pack(b"init", slow)] == [5000, 5000, 5000]


def test_a_fragment_above_the_limit_is_cut_into_even_pieces() -> None:
    chunks = pack(b"init", [Fragment(bytes(250), 3_000_000, random_access=True)])
    assert [len(chunk.data) for chunk in chunks] == [87, 83, 84]
    assert [chunk.duration_ms for chunk in chunks] == [1000, 1000, 1000]
    assert {chunk.segment for chunk in chunks} == {0}


def test_a_long_still_is_spread_over_chunks_of_ten_seconds() -> None:
    chunks = pack(b"init", [Fragment(bytes(50), 25_000_000, random_access=True)])
    assert [chunk.duration_ms for chunk in chunks] == [8333, 8334, 8333]


def test_a_still_of_years_is_refused() -> None:
    with pytest.raises(InvalidMediaError, match="stands still for 1000000000 seconds"):
        pack(b"init", [Fragment(bytes(50), 10**15, random_access=True)])


def test_no_fragment_is_an_error() -> None:
    with pytest.raises(InvalidMediaError, match="no video data"):
        Packer(b"init").finish()


@pytest.mark.parametrize("size", [0, 101])
def test_an_init_segment_that_does_not_fit_is_an_error(size: int) -> None:
    with pytest.raises(InvalidMediaError, match="init segment"):
        Packer(bytes(size), LIMITS)


def test_the_limits_of_the_public_contract() -> None:
    assert Limits(MAX_CHUNK_BYTES, 10_000_000, 6_000_000) == DEFAULT_LIMITS
