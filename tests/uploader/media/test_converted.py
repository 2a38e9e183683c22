"""What MP4 and browsers do not take is converted: it plays, and picture and sound stay in step."""

from itertools import pairwise

import pytest

from tests.support import media
from tests.support.clips import SYNC_EVENT_S
from tests.uploader.media.conftest import Studio
from tests.uploader.media.test_lossless import check_chunks, check_plays

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("sync-mp4", {"h264", "aac"}),
        ("sync-mov-pcm", {"h264", "flac"}),
        ("sync-avi-mpeg4-mp3", {"h264", "aac"}),
        ("sync-avi-msmpeg4", {"h264", "flac"}),
        ("sync-avi-h264-b", {"h264", "aac"}),
        ("sync-webm-vp8-vorbis", {"h264", "opus"}),
        ("sync-flv-flv1-mp3", {"h264", "aac"}),
        ("sync-mov-mjpeg", {"h264", "aac"}),
        ("sync-mov-prores", {"h264", "flac"}),
    ],
)
async def test_converted(studio: Studio, name: str, codecs: set[str]) -> None:
    packed = await studio.pack(name)

    assert set(media.codecs(packed.output)) == codecs
    before, after = media.event_times(packed.source), media.event_times(packed.output)
    assert before[0] == pytest.approx(SYNC_EVENT_S, abs=0.1)
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], abs=0.005)
    assert packed.duration_s == pytest.approx(media.length_s(media.tracks(packed.source)), abs=0.05)
    assert len(media.frame_times(packed.output)) == len(media.frame_times(packed.source))
    check_chunks(packed)
    check_plays(packed)


@pytest.mark.parametrize("name", ["sync-mov-pcm", "sync-avi-msmpeg4", "sync-mov-prores"])
async def test_pcm_becomes_flac_bit_for_bit(studio: Studio, name: str) -> None:
    packed = await studio.pack(name)
    assert media.sample_hash(packed.output) == media.sample_hash(packed.source)


async def test_the_picture_beside_converted_sound_is_copied(studio: Studio) -> None:
    packed = await studio.pack("sync-mov-pcm")
    assert media.stream_hashes(packed.output)[0] == media.stream_hashes(packed.source)[0]


async def test_a_variable_frame_rate_stays_as_it_is(studio: Studio) -> None:
    packed = await studio.pack("variable-rate-vp8")
    before, after = media.frame_times(packed.source), media.frame_times(packed.output)
    assert [now - after[0] for now in after] == pytest.approx([was - before[0] for was in before], abs=0.002)
    assert len({round(b - a, 3) for a, b in pairwise(before)}) > 1
