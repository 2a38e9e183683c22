"""The erasure codec: every way of losing two fragments, at every size that matters."""

import hashlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.erasure import consistent, decode, encode
from vstack.core.redundancy import fragment_bytes
from vstack.units import MAX_CHUNK_BYTES

KEPT = list(itertools.combinations(range(5), 3))


@given(chunk=st.binary(min_size=1, max_size=64))
def test_any_three_fragments_give_the_chunk_back(chunk: bytes) -> None:
    fragments = encode(chunk)
    assert [len(fragment) for fragment in fragments] == [fragment_bytes(len(chunk))] * 5
    for kept in KEPT:
        assert decode({index: fragments[index] for index in kept}, len(chunk)) == chunk


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("size_bytes", [MAX_CHUNK_BYTES, MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES - 2])
def test_full_chunks_survive_every_pair_of_losses(size_bytes: int, kept: tuple[int, ...]) -> None:
    chunk = random.Random(size_bytes).randbytes(size_bytes)
    fragments = encode(memoryview(chunk))
    assert len(fragments[0]) == (699_050 if size_bytes == 2_097_150 else 699_051)
    assert decode({index: fragments[index] for index in kept}, size_bytes) == chunk


@given(chunk=st.binary(min_size=1, max_size=200), lost=st.integers(0, 4))
def test_a_lost_fragment_is_made_again_byte_for_byte(chunk: bytes, lost: int) -> None:
    fragments = encode(chunk)
    rest = {index: fragment for index, fragment in enumerate(fragments) if index != lost}
    assert encode(decode(rest, len(chunk)))[lost] == fragments[lost]


@given(chunk=st.binary(min_size=1, max_size=64), index=st.integers(0, 4), data=st.data())
def test_one_wrong_byte_in_four_fragments_is_noticed(chunk: bytes, index: int, data: st.DataObject) -> None:
    fragments = dict(enumerate(encode(chunk)))
    assert consistent(fragments, len(chunk))
    at = data.draw(st.integers(0, len(fragments[index]) - 1))
    wrong = bytearray(fragments[index])
    wrong[at] ^= data.draw(st.integers(1, 255))
    for left_out in {0, 1, 2, 3, 4} - {index}:
        others = {**fragments, index: bytes(wrong)}
        del others[left_out]
        assert not consistent(others, len(chunk))


def test_the_format_is_fixed() -> None:
    """Fragments on disks outlive every version of the codec: these bytes never change."""
    fragments = encode(bytes(range(256)) * 3 + b"tail")
    assert fragments[0] + fragments[1] + fragments[2] == bytes(range(256)) * 3 + b"tail" + bytes(2)
    assert [hashlib.sha256(fragment).hexdigest()[:16] for fragment in fragments[3:]] == [
        "1a0c25e0a959b2b4",
        "66e1204624dcdeaa",
    ]


@pytest.mark.parametrize(
    ("fragments", "size_bytes"),
    [
        ({0: b"ab", 1: b"cd"}, 5),
        ({0: b"ab", 1: b"cd", 5: b"ef"}, 5),
        ({-1: b"ab", 1: b"cd", 2: b"ef"}, 5),
        ({0: b"ab", 1: b"cd", 2: b"e"}, 5),
        ({0: b"ab", 1: b"cd", 2: b"ef"}, 7),
        ({}, 0),
    ],
)
def test_what_cannot_be_a_chunk_is_refused(fragments: dict[int, bytes], size_bytes: int) -> None:
    with pytest.raises(ValueError):
        decode(fragments, size_bytes)


def test_an_empty_chunk_has_no_fragments() -> None:
    with pytest.raises(ValueError):
        encode(b"")
