import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mp4 import NON_SYNC, SYNC, Sample, box, fragment, full, h264, hevc
from vstack.core.fmp4.boxes import Box, BoxReader
from vstack.core.fmp4.fragment import MAX_SAMPLES_PER_RUN, TrackFragment, is_random_access, parse_moof
from vstack.core.fmp4.init_segment import Codec, SampleDefaults, Track
from vstack.errors import InvalidMediaError

H264 = Track(1, 1000, is_video=True, codec=Codec.H264, nal_length_bytes=4)
HEVC = Track(1, 1000, is_video=True, codec=Codec.HEVC, nal_length_bytes=4)
VP9 = Track(1, 1000, is_video=True)


def parse(data: bytes, track: Track = H264) -> TrackFragment:
    moof = next(BoxReader().push(data))
    (part,) = parse_moof(moof, {1: track})
    return part


def test_samples_are_found_where_they_lie() -> None:
    payloads = [b"first", b"second", b"3"]
    data = fragment([Sample(payload) for payload in payloads], decode_time=1 << 33)
    part = parse(data)
    assert part.decode_time == 1 << 33
    assert [bytes(sample) for sample in part.samples(memoryview(data))] == payloads


def test_presentation_follows_composition_offsets_and_the_edit_list() -> None:
    samples = [
        Sample(b"I", 40, composition=80),
        Sample(b"P", 40, composition=160),
        Sample(b"B", 40, composition=0),
        Sample(b"B", 40, composition=0),
    ]
    shown = Track(1, 1000, is_video=True, offset_us=-80_000)
    assert parse(fragment(samples, decode_time=1000), shown).shown_us() == (1_000_000, 1_160_000)


def test_negative_composition_offsets() -> None:
    part = parse(fragment([Sample(b"I", 40, composition=-40), Sample(b"P", 40, composition=0)]))
    assert part.shown_us() == (-40_000, 80_000)


def test_what_a_run_leaves_out_comes_from_the_header_and_then_from_the_track() -> None:
    track = Track(1, 1000, is_video=True, defaults=SampleDefaults(40, 3, NON_SYNC))
    tfhd = full(b"tfhd", struct.pack(">II", 1, 50), flags=0x20008)
    trun = full(b"trun", struct.pack(">Ii", 2, 0), flags=0x1)
    part = parse(box(b"moof", box(b"traf", tfhd, trun)), track)
    assert part.runs[0].sizes_bytes == (3, 3)
    assert part.shown_us() == (0, 100_000)
    assert part.runs[0].first_flags == NON_SYNC


@pytest.mark.parametrize(
    ("track", "samples", "expected"),
    [
        (H264, [Sample(h264(7, 8, 5), flags=SYNC)], True),
        (H264, [Sample(h264(7, 8, 1), flags=SYNC)], False),
        (H264, [Sample(h264(5), flags=NON_SYNC)], False),
        (H264, [Sample(h264(1), flags=SYNC), Sample(h264(5), flags=SYNC)], False),
        (HEVC, [Sample(hevc(21), flags=SYNC, composition=80), Sample(hevc(9))], False),
        (HEVC, [Sample(hevc(21), flags=SYNC, composition=80), Sample(hevc(1))], True),
        (HEVC, [Sample(hevc(21), flags=SYNC)], True),
        (VP9, [Sample(b"x", flags=SYNC)], True),
        (VP9, [Sample(b"x", flags=NON_SYNC)], False),
    ],
)
def test_random_access(track: Track, samples: list[Sample], *, expected: bool) -> None:
    data = fragment(samples)
    assert is_random_access(parse(data, track), memoryview(data)) is expected


def test_a_sample_outside_its_fragment_is_an_error() -> None:
    data = fragment([Sample(h264(5), flags=SYNC)])
    with pytest.raises(InvalidMediaError, match="outside its fragment"):
        is_random_access(parse(data), memoryview(data)[:-1])


def test_an_unknown_track_and_a_missing_header_are_errors() -> None:
    with pytest.raises(InvalidMediaError, match="unknown track 9"):
        parse(fragment([Sample(b"x")], track_id=9))
    with pytest.raises(InvalidMediaError, match="no header"):
        parse(box(b"moof", box(b"traf")))


@pytest.mark.parametrize("count", [MAX_SAMPLES_PER_RUN + 1, (1 << 32) - 1])
def test_a_hostile_sample_count_is_refused_before_it_is_believed(count: int) -> None:
    tfhd = full(b"tfhd", struct.pack(">I", 1), flags=0x20000)
    for flags in (0x1, 0xF01):
        trun = full(b"trun", struct.pack(">Ii", count, 0), flags=flags)
        with pytest.raises(InvalidMediaError, match="claims"):
            parse(box(b"moof", box(b"traf", tfhd, trun)))


def test_a_count_above_the_rows_present_is_an_error() -> None:
    tfhd = full(b"tfhd", struct.pack(">I", 1), flags=0x20000)
    trun = full(b"trun", struct.pack(">Ii", 3, 0) + bytes(2 * 16), flags=0xF01)
    with pytest.raises(InvalidMediaError, match="too short"):
        parse(box(b"moof", box(b"traf", tfhd, trun)))


@given(st.data())
def test_damage_anywhere_is_harmless_or_an_error(data: st.DataObject) -> None:
    whole = fragment([Sample(h264(5), flags=SYNC), Sample(h264(1), composition=40), Sample(h264(1))])
    moof = bytearray(next(BoxReader().push(whole)).raw)
    for _ in range(data.draw(st.integers(1, 4))):
        moof[data.draw(st.integers(8, len(moof) - 1))] = data.draw(st.integers(0, 255))
    try:
        for part in parse_moof(Box(b"moof", memoryview(bytes(moof)), 8), {1: H264}):
            is_random_access(part, memoryview(whole))
            part.shown_us()
    except InvalidMediaError:
        pass
