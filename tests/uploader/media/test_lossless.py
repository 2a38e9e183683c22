"""What comes out is what went in: packets, key frames, starts and length of every copied stream, and it plays."""

import pytest

from tests.support import media
from tests.uploader.media.conftest import Packed, Studio
from vstack.units import MAX_CHUNK_BYTES

pytestmark = pytest.mark.cluster

COPIED = [
    *("mp4", "mp4-fragmented", "mov", "mkv", "mkv-flac", "mkv-opus", "mkv-ac3", "mkv-eac3", "avi-length-prefixed"),
    *("flv", "webm-vp9", "mkv-av1", "mp4-av1"),
    *("hevc", "hevc-open-gop", "hevc-intra", "open-gop", "long-gop", "intra", "no-b-frames"),
    *("0.5mbps", "5mbps", "20mbps", "huge-frames", "many-chunks"),
    *("variable-rate", "29.97", "slideshow", "no-audio", "audio-late-1s", "audio-late-5s", "audio-late-5s-ac3"),
    *("video-late-3s", "audio-longer", "audio-shorter", "hidden-start", "starts-at-100s"),
    *("two-sounds", "two-pictures", "cover-and-timecode"),
]


def check_chunks(packed: Packed) -> None:
    chunks = packed.chunks
    assert all(1 <= len(chunk.data) <= MAX_CHUNK_BYTES for chunk in chunks)
    assert all(0 <= chunk.duration_ms <= 10_000 for chunk in chunks)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert 600 < chunks[0].init_size_bytes < 5000
    for segment in packed.segments[:-1]:
        assert sum(chunk.duration_ms for chunk in segment) >= 6000 - len(segment)


def check_plays(packed: Packed) -> None:
    """From start to end, and from the start of the second segment."""
    assert media.warnings(packed.output) == ""
    if len(packed.segments) > 1:
        assert media.warnings(packed.segment_file(1)) == ""


def check_timing(packed: Packed, before: list[media.Track], after: list[media.Track]) -> None:
    for was, now in zip(before, after, strict=True):
        assert now.start_s - after[0].start_s == pytest.approx(was.start_s - before[0].start_s, abs=0.002)
    assert packed.duration_s == pytest.approx(media.length_s(before), abs=0.05)
    assert media.length_s(after) == pytest.approx(media.length_s(before), abs=0.05)


@pytest.mark.parametrize("name", COPIED)
async def test_lossless(studio: Studio, name: str) -> None:
    packed = await studio.pack(name)

    assert packed.plan.lossless
    assert media.stream_hashes(packed.output) == media.stream_hashes(packed.source)
    before, after = media.tracks(packed.source), media.tracks(packed.output)
    assert [(track.packets, track.key_frames) for track in after] == [
        (track.packets, track.key_frames) for track in before
    ]
    check_chunks(packed)
    check_timing(packed, before, after)
    check_plays(packed)


@pytest.mark.parametrize("name", ["avi", "avi-ac3"])
async def test_start_codes_become_lengths_but_every_picture_stays(studio: Studio, name: str) -> None:
    """AVI keeps H.264 with start codes, MP4 with lengths: the same NAL units between other marks."""
    packed = await studio.pack(name)
    assert packed.plan.lossless
    assert media.stream_hashes(packed.output)[1:] == media.stream_hashes(packed.source)[1:]
    assert media.picture_hashes(packed.output) == media.picture_hashes(packed.source)
    check_chunks(packed)
    check_timing(packed, media.tracks(packed.source), media.tracks(packed.output))
    check_plays(packed)


@pytest.mark.parametrize("name", ["open-gop", "hevc-open-gop"])
async def test_pictures_that_only_claim_random_access_start_no_segment(studio: Studio, name: str) -> None:
    packed = await studio.pack(name)
    assert media.tracks(packed.source)[0].key_frames > 2, "the container must claim it, else this proves nothing"
    assert len(packed.segments) == 1


async def test_more_than_a_thousand_chunks(studio: Studio) -> None:
    packed = await studio.pack("many-chunks")
    assert len(packed.chunks) > 1000
    assert packed.duration_s == pytest.approx(10_400, abs=0.05)


async def test_a_frame_above_the_chunk_size_is_cut(studio: Studio) -> None:
    packed = await studio.pack("huge-frames")
    assert len(packed.chunks) > len(media.frame_times(packed.source))


async def test_a_still_above_the_chunk_duration_is_cut(studio: Studio) -> None:
    packed = await studio.pack("slideshow")
    assert packed.duration_s == pytest.approx(75.0)
    assert len(packed.chunks) >= 8


async def test_covers_timecodes_and_metadata_are_left_behind(studio: Studio) -> None:
    packed = await studio.pack("cover-and-timecode")
    assert set(media.codecs(packed.source)) == {"aac", "h264", "mjpeg", "unknown"}
    assert b"filmed-at-home" in packed.source.read_bytes()
    assert b"filmed-at-home" not in packed.chunks[0].data
    assert media.codecs(packed.output) == ["h264", "aac"]


async def test_the_same_file_gives_the_same_chunks(studio: Studio) -> None:
    packed = await studio.pack("mp4")
    again = [chunk async for chunk in studio.chunks(packed.source, packed.plan)]
    assert again == packed.chunks
