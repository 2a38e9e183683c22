"""The range parser against RFC 9110, with a slice of real bytes as the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.errors import PreconditionError
from vstack.storage.ranges import content_range, requested

ETAG = '"e"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-9", slice(0, 10)),
        ("bytes=3-5", slice(3, 6)),
        ("bytes=3-", slice(3, 10)),
        ("bytes=9-", slice(9, 10)),
        ("bytes=0-99999999999999999999", slice(0, 10)),
        ("bytes=-1", slice(9, 10)),
        ("bytes=-10", slice(0, 10)),
        ("bytes=-999", slice(0, 10)),
        ("BYTES = 1 - 2", slice(1, 3)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("bytes=\u0661-2", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("", None),
    ],
)
def test_single_range(text: str, expected: slice | None) -> None:
    assert requested({"Range": text}, 10, ETAG) == expected


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 900 + "-"])
def test_unsatisfiable(text: str) -> None:
    with pytest.raises(PreconditionError) as caught:
        requested({"Range": text}, 10, ETAG)
    assert caught.value.size_bytes == 10


def test_if_range() -> None:
    assert requested({"Range": "bytes=0-1", "If-Range": ETAG}, 10, ETAG) == slice(0, 2)
    assert requested({"Range": "bytes=0-1", "If-Range": '"other"'}, 10, ETAG) is None
    assert requested({}, 10, ETAG) is None


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
def test_first_and_last_name_the_bytes_between(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    try:
        part = requested({"Range": f"bytes={first}-{last}"}, size, ETAG)
    except PreconditionError:
        assert first >= size
        return
    if last < first:
        assert part is None
    else:
        assert part is not None
        assert data[part] == data[first : last + 1]
        assert content_range(part, size) == f"bytes {first}-{min(last, size - 1)}/{size}"
