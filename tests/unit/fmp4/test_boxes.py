import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mp4 import box, large_box
from vstack.core.fmp4.boxes import BoxReader, children, parse_header
from vstack.errors import InvalidMediaError
from vstack.units import MIB

kinds = st.sampled_from([b"ftyp", b"moov", b"moof", b"mdat", b"free", b"\x00\xff\x80\x01"])
boxes = st.lists(
    st.builds(
        lambda kind, body, large: (large_box if large else box)(kind, body),
        kinds,
        st.binary(max_size=200),
        st.booleans(),
    ),
    max_size=8,
)


@given(boxes, st.lists(st.integers(0, 2000), max_size=20))
def test_boxes_come_out_whole_however_the_stream_is_cut(whole: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(whole)
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = BoxReader()
    found = [item for a, b in pairwise(at) for item in reader.push(stream[a:b])]
    reader.finish()
    assert [bytes(item.raw) for item in found] == whole
    assert [bytes(item.raw[4:8]) for item in found] == [item.kind for item in found]
    assert all(len(item.body) == len(item.raw) - item.header_bytes for item in found)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 40))
def test_random_bytes_are_boxes_or_an_error(data: bytes, step: int) -> None:
    reader = BoxReader(max_box_bytes=1000)
    kept = b""
    try:
        for i in range(0, len(data), step):
            kept += b"".join(item.raw for item in reader.push(data[i : i + step]))
        reader.finish()
    except InvalidMediaError:
        assert data.startswith(kept)
    else:
        assert kept == data


def test_a_box_at_the_limit_passes_and_one_above_is_refused_at_its_header() -> None:
    assert len(list(BoxReader(max_box_bytes=100).push(box(b"mdat", bytes(92))))) == 1
    with pytest.raises(InvalidMediaError, match="101 bytes is above 100"):
        list(BoxReader(max_box_bytes=100).push(box(b"mdat", bytes(93))[:8]))


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">I4s", 0, b"mdat"),
        struct.pack(">I4s", 2, b"mdat"),
        struct.pack(">I4s", 7, b"mdat"),
        struct.pack(">I4sQ", 1, b"mdat", 15),
        struct.pack(">I4sQ", 1, b"mdat", 1 << 63),
        struct.pack(">I4s", 0xFFFFFFFF, b"mdat"),
    ],
)
def test_impossible_and_hostile_sizes_are_refused(header: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        list(BoxReader().push(header))


def test_a_hostile_header_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMediaError):
            list(BoxReader().push(struct.pack(">I4sQ", 1, b"mdat", 1 << 40)))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_stream_that_ends_inside_a_box_is_an_error() -> None:
    reader = BoxReader()
    assert list(reader.push(box(b"free", b"abc")[:-1])) == []
    with pytest.raises(InvalidMediaError, match="ends inside"):
        reader.finish()


def test_a_header_waits_for_all_of_its_bytes() -> None:
    assert parse_header(large_box(b"mdat", b"x")[:15]) is None
    assert parse_header(b"\x00\x00\x00") is None


def test_children_must_fill_their_parent() -> None:
    inner = box(b"aaaa", b"1") + box(b"bbbb")
    assert [child.kind for child in children(memoryview(inner))] == [b"aaaa", b"bbbb"]
    for broken in (inner + b"\x00", inner[:-1], box(b"aaaa", b"1")[:-1]):
        with pytest.raises(InvalidMediaError):
            list(children(memoryview(broken)))


def test_a_child_of_size_zero_reaches_to_the_end_of_its_parent() -> None:
    (child,) = children(memoryview(struct.pack(">I4s", 0, b"aaaa") + b"123"))
    assert bytes(child.body) == b"123"
