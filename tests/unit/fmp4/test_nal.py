import pytest

from tests.support.mp4 import h264, hevc
from vstack.core.fmp4.nal import h264_is_random_access, hevc_is_random_access

SPS, PPS, SEI, DELIMITER = 7, 8, 6, 9
IDR, NON_IDR = 5, 1


@pytest.mark.parametrize(
    ("nal_types", "expected"),
    [
        ((IDR,), True),
        ((DELIMITER, SPS, PPS, SEI, IDR, IDR), True),
        ((NON_IDR,), False),
        ((SPS, PPS, SEI, NON_IDR), False),  # open GOP: an I picture with all parameter sets, marked as sync
        ((2,), False),
        ((SPS, PPS), False),
        ((), False),
    ],
)
def test_only_an_idr_slice_makes_h264_random_access(nal_types: tuple[int, ...], *, expected: bool) -> None:
    assert h264_is_random_access(memoryview(h264(*nal_types)), 4) is expected


def test_nal_lengths_of_one_and_two_bytes() -> None:
    assert h264_is_random_access(memoryview(b"\x01\x67\x02\x65\x00"), 1)
    assert h264_is_random_access(memoryview(b"\x00\x01\x67\x00\x02\x65\x00"), 2)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x67", b"\x00\x00\x00\x00"])
def test_broken_lengths_are_no_random_access(data: bytes) -> None:
    assert not h264_is_random_access(memoryview(data), 4)
    assert not hevc_is_random_access([memoryview(data)], 4, reordered=False)


VPS, TRAIL, RADL, RASL, BLA, IDR_RADL, IDR_N, CRA = 32, 1, 7, 9, 18, 19, 20, 21


@pytest.mark.parametrize(
    ("pictures", "reordered", "expected"),
    [
        ((IDR_RADL, RADL, TRAIL), True, True),
        ((IDR_N, TRAIL), True, True),
        ((BLA, TRAIL), True, True),
        ((16, RASL), True, False),  # BLA_W_LP may have RASL pictures
        ((TRAIL, IDR_N), True, False),
        ((CRA, TRAIL), True, True),
        ((CRA, RADL, TRAIL), True, True),
        ((CRA, RASL, TRAIL), True, False),
        ((CRA, RADL, RASL, TRAIL), True, False),
        ((CRA, CRA), True, True),
        ((CRA, IDR_N), True, True),
        ((CRA,), True, False),  # what follows is in the next fragment: assume the worse
        ((CRA, RADL), True, False),
        ((CRA,), False, True),  # shown when decoded: nothing later can be shown before it
        ((CRA, RASL), False, True),
        ((), True, False),
    ],
)
def test_random_access_in_hevc(pictures: tuple[int, ...], *, reordered: bool, expected: bool) -> None:
    samples = [memoryview(hevc(VPS, 33, 34, kind)) for kind in pictures]
    assert hevc_is_random_access(samples, 4, reordered=reordered) is expected
