"""From bytes to chunks: the whole pure pipeline on hand-made fragmented MP4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mp4 import NON_SYNC, SYNC, Sample, TrackSpec, box, fragment, fragment_of, h264, init_segment
from vstack.core.fmp4 import Limits, Mp4Chunker, PackedChunk
from vstack.errors import InvalidMediaError

VIDEO = TrackSpec(1, 1000)
AUDIO = TrackSpec(2, 48000, b"soun", b"mp4a")
IDR = Sample(h264(7, 8, 5), 40, SYNC)
OPEN_I = Sample(h264(7, 8, 1), 40, SYNC)
P = Sample(h264(1), 40, NON_SYNC)


def chunks_of(stream: bytes, step: int = 1 << 20, limits: Limits | None = None) -> list[PackedChunk]:
    chunker = Mp4Chunker(limits) if limits else Mp4Chunker()
    out = [chunk for at in range(0, len(stream), step) for chunk in chunker.push(stream[at : at + step])]
    return [*out, *chunker.finish()]


def movie(seconds: int, first: Sample = IDR, others: Sample = IDR) -> bytes:
    """A video of one fragment a second, each of 25 frames; `others` begin the fragments after the first."""
    parts = [
        fragment([others if second else first, *[P] * 24], decode_time=second * 1000, sequence=second + 1)
        for second in range(seconds)
    ]
    return init_segment(VIDEO) + b"".join(parts)


@given(st.integers(1, 5000))
def test_chunks_do_not_depend_on_how_the_bytes_arrive(step: int) -> None:
    stream = movie(20)
    limits = Limits(chunk_bytes=2000)
    chunks = chunks_of(stream, step, limits)
    assert b"".join(chunk.data for chunk in chunks) == stream
    assert chunks == chunks_of(stream, len(stream), limits)


def test_segments_start_at_idr_pictures_once_six_seconds_are_reached() -> None:
    chunks = chunks_of(movie(20))
    assert [(chunk.segment, chunk.duration_ms) for chunk in chunks] == [(0, 6000), (1, 6000), (2, 6000), (3, 2000)]
    assert chunks[0].init_size_bytes == len(init_segment(VIDEO))


def test_open_gop_pictures_start_no_segment() -> None:
    chunks = chunks_of(movie(20, others=OPEN_I))
    assert [(chunk.segment, chunk.duration_ms) for chunk in chunks] == [(0, 10_000), (0, 10_000)]


def test_segments_follow_the_first_video_track_only() -> None:
    second = TrackSpec(3, 1000)
    stream = init_segment(AUDIO, VIDEO, second)
    for at in range(12):
        stream += fragment_of({3: (at * 1000, [IDR, *[P] * 24]), 1: (at * 1000, [P] * 25)}, sequence=at + 1)
    assert {chunk.segment for chunk in chunks_of(stream)} == {0}


def test_sound_that_goes_on_after_the_picture_counts() -> None:
    stream = init_segment(VIDEO, AUDIO)
    stream += fragment_of({1: (0, [IDR, *[P] * 24]), 2: (0, [Sample(b"a", 48000, SYNC)])})
    stream += fragment([Sample(b"b", 48000, SYNC), Sample(b"c", 24000, SYNC)], track_id=2, decode_time=48000)
    assert sum(chunk.duration_ms for chunk in chunks_of(stream)) == 2500


def test_time_starts_with_the_first_sample_shown_and_gaps_count() -> None:
    stream = init_segment(VIDEO)
    stream += fragment([IDR, *[P] * 24], decode_time=3000) + fragment([IDR], decode_time=9000)
    assert sum(chunk.duration_ms for chunk in chunks_of(stream)) == 6040


def test_what_the_edit_list_hides_does_not_count() -> None:
    stream = init_segment(TrackSpec(1, 1000, edits=((0, 200),))) + fragment([IDR, *[P] * 24])
    assert sum(chunk.duration_ms for chunk in chunks_of(stream)) == 800


def test_a_late_track_is_placed_by_its_empty_edit() -> None:
    stream = init_segment(VIDEO, TrackSpec(2, 48000, b"soun", b"mp4a", edits=((2000, -1), (0, 0))))
    stream += fragment_of({1: (0, [IDR, *[P] * 24]), 2: (0, [Sample(b"a", 48000, SYNC)])})
    assert sum(chunk.duration_ms for chunk in chunks_of(stream)) == 3000


def test_boxes_around_fragments_are_kept() -> None:
    stream = init_segment(VIDEO) + box(b"styp", b"abcd") + fragment([IDR]) + box(b"free") + fragment([P]) + box(b"mfra")
    chunks = chunks_of(stream, step=7)
    assert b"".join(chunk.data for chunk in chunks) == stream
    assert chunks[-1].last


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"", "no moov"),
        (box(b"ftyp", b"iso5"), "no moov"),
        (init_segment(VIDEO), "no video data"),
        (movie(2)[:-1], "ends inside"),
        (init_segment(VIDEO) + box(b"mdat", b"x"), "one moof"),
        (init_segment(VIDEO) + fragment([IDR])[:-1] + b"\x00" + fragment([IDR], track_id=5), "unknown track 5"),
        (box(b"moov", b"\x00" * 40), "less than its own header|no mvhd"),
    ],
)
def test_streams_that_are_no_fragmented_mp4(stream: bytes, message: str) -> None:
    with pytest.raises(InvalidMediaError, match=message):
        chunks_of(stream)


def test_endless_boxes_without_a_fragment_are_refused() -> None:
    chunker = Mp4Chunker()
    filler = box(b"free", bytes(4 << 20)) * 10
    with pytest.raises(InvalidMediaError, match="make no fragment"):
        list(chunker.push(filler))


@given(st.data())
def test_damage_anywhere_is_harmless_or_an_error(data: st.DataObject) -> None:
    stream = bytearray(movie(3))
    for _ in range(data.draw(st.integers(1, 5))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        chunks = chunks_of(bytes(stream))
    except InvalidMediaError:
        return
    assert b"".join(chunk.data for chunk in chunks) == stream
