import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mp4 import TrackSpec, box, full, init_segment
from vstack.core.fmp4.boxes import Box, BoxReader
from vstack.core.fmp4.init_segment import MAX_TRACKS, Codec, SampleDefaults, Track, parse_moov
from vstack.errors import InvalidMediaError

AUDIO = TrackSpec(2, 48000, b"soun", b"mp4a")


def moov_of(data: bytes) -> Box:
    return next(item for item in BoxReader().push(data) if item.kind == b"moov")


def parse(*tracks: TrackSpec) -> dict[int, Track]:
    return parse_moov(moov_of(init_segment(*tracks)))


def test_tracks_in_file_order() -> None:
    tracks = parse(TrackSpec(7, 12800, default_duration=512), AUDIO)
    assert list(tracks) == [7, 2]
    assert tracks[7] == Track(
        7, 12800, is_video=True, codec=Codec.H264, nal_length_bytes=4, defaults=SampleDefaults(512, 0, 0x10000)
    )
    assert (tracks[2].timescale, tracks[2].is_video, tracks[2].codec) == (48000, False, Codec.OTHER)


@pytest.mark.parametrize(("entry", "codec"), [(b"avc1", Codec.H264), (b"hvc1", Codec.HEVC), (b"vp09", Codec.OTHER)])
def test_codecs(entry: bytes, codec: Codec) -> None:
    track = parse(TrackSpec(entry=entry))[1]
    assert track.codec is codec
    assert track.nal_length_bytes == (0 if codec is Codec.OTHER else 4)


@pytest.mark.parametrize(
    ("edits", "offset_us"),
    [
        ((), 0),
        (((0, 80),), -40_000),  # hides two frames of reordering delay
        (((5000, -1), (0, 0)), 5_000_000),  # starts five seconds late
        (((500, -1), (250, -1), (0, 1000), (100, -1)), 750_000 - 500_000),
    ],
)
def test_edit_lists_shift_the_start(edits: tuple[tuple[int, int], ...], offset_us: int) -> None:
    assert parse(TrackSpec(timescale=2000, edits=edits))[1].offset_us == offset_us


def test_an_edit_list_that_changes_speed_is_refused() -> None:
    good = init_segment(TrackSpec(edits=((0, 80),)))
    at = good.index(b"elst") + 4 + 4 + 4 + 8
    with pytest.raises(InvalidMediaError, match="playing speed"):
        parse_moov(moov_of(good[:at] + b"\x00\x02" + good[at + 2 :]))


def test_no_track_and_too_many_tracks_are_errors() -> None:
    with pytest.raises(InvalidMediaError, match="no tracks"):
        parse()
    with pytest.raises(InvalidMediaError, match="more than 64"):
        parse(*(TrackSpec(track_id) for track_id in range(1, MAX_TRACKS + 2)))


def test_a_timescale_of_zero_is_an_error() -> None:
    with pytest.raises(InvalidMediaError, match="timescale of zero"):
        parse(TrackSpec(timescale=0))


def test_a_missing_box_is_named() -> None:
    with pytest.raises(InvalidMediaError, match="no mvhd box"):
        parse_moov(moov_of(box(b"moov", full(b"mvex", b""))))


@given(st.data())
def test_damage_anywhere_is_harmless_or_an_error(data: st.DataObject) -> None:
    whole = bytearray(moov_of(init_segment(TrackSpec(edits=((0, 80),)), AUDIO)).raw)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        tracks = parse_moov(Box(b"moov", memoryview(bytes(whole)), 8))
    except InvalidMediaError:
        return
    assert all(track.timescale > 0 for track in tracks.values())
