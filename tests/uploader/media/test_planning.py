"""Decisions, without ffmpeg."""

import pytest

from vstack.uploader.media import MediaInfo, Plan, Stream, StreamKind, plan

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


def video(codec: str = "h264", index: int = 0, **facts: object) -> Stream:
    return Stream(index, StreamKind.VIDEO, codec, **{"width": 640, "height": 360, **facts})  # type: ignore[arg-type]


def audio(codec: str = "aac", index: int = 1, start_s: float | None = 0.0) -> Stream:
    return Stream(index, StreamKind.AUDIO, codec, start_s=start_s)


def planned(*streams: Stream, container: str = MP4) -> Plan:
    return plan(MediaInfo(10.0, streams, container))


def option(decided: Plan, name: str) -> str | None:
    args = decided.output_args
    return args[args.index(name) + 1] if name in args else None


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_video_that_mp4_and_browsers_take_is_copied(codec: str) -> None:
    decided = planned(video(codec), audio())
    assert decided.lossless
    assert option(decided, "-c:v:0") == "copy"
    assert option(decided, "-tag:v:0") == ("hvc1" if codec == "hevc" else None)


@pytest.mark.parametrize("codec", ["vp8", "flv1", "mjpeg", "mpeg4", "msmpeg4v3", "prores", "theora", "rawvideo"])
def test_other_video_becomes_h264_with_closed_groups(codec: str) -> None:
    decided = planned(video(codec), audio())
    assert not decided.lossless
    assert option(decided, "-c:v:0") == "libx264"
    assert option(decided, "-x264-params:v:0") == "open-gop=0"
    assert option(decided, "-c:a:0") == "copy"


@pytest.mark.parametrize(
    ("codec", "target"),
    [
        *((copied, None) for copied in ("aac", "opus", "flac", "ac3", "eac3")),
        *((lossless, "flac") for lossless in ("pcm_s16le", "pcm_s24be", "pcm_mulaw", "alac")),
        ("mp3", "aac"),
        ("vorbis", "opus"),
        ("wmav2", "aac"),
    ],
)
def test_audio_targets(codec: str, target: str | None) -> None:
    assert [item.target for item in planned(video(), audio(codec)).streams] == [None, target]


@pytest.mark.parametrize(
    ("container", "reorders", "copied"),
    [("avi", True, False), ("avi", False, True), ("matroska,webm", True, True), ("flv", True, True)],
)
def test_avi_has_no_presentation_times(container: str, *, reorders: bool, copied: bool) -> None:
    assert planned(video(reorders=reorders), container=container).lossless is copied


def test_odd_pictures_are_padded_for_the_encoder() -> None:
    assert option(planned(video("mjpeg", width=319)), "-filter:v:0") == "pad=ceil(iw/2)*2:ceil(ih/2)*2"
    assert option(planned(video("mjpeg")), "-filter:v:0") is None
    assert option(planned(video("h264", width=319)), "-filter:v:0") is None


def test_options_are_numbered_per_kind_and_streams_mapped_by_index() -> None:
    args = " ".join(planned(audio("mp3", 0), video("h264", 2), video("vp8", 3), audio("aac", 7)).output_args)
    assert args.startswith("-map 0:0 -c:a:0 aac -b:a:0 256k -map 0:2 -c:v:0 copy -map 0:3 -c:v:1 libx264")
    assert "-map 0:7 -c:a:1 copy" in args


def test_ordinarily_starts_are_written_as_edit_lists() -> None:
    decided = planned(video(), audio(start_s=-0.02))
    assert option(decided, "-movflags") == "+frag_keyframe+empty_moov+default_base_moof+skip_trailer+delay_moov"
    assert option(decided, "-avoid_negative_ts") is None


@pytest.mark.parametrize("start_s", [2.1, 600.0, None])
def test_a_late_stream_must_not_hold_back_the_init_segment(start_s: float | None) -> None:
    decided = planned(video(), audio(start_s=start_s))
    assert option(decided, "-movflags") == "+frag_keyframe+empty_moov+default_base_moof+skip_trailer+frag_discont"
    assert option(decided, "-use_editlist") == "0"


def test_late_ac3_has_to_wait_since_its_init_segment_needs_a_packet() -> None:
    assert "delay_moov" in (option(planned(video(), audio("ac3", start_s=60.0)), "-movflags") or "")


def test_a_long_hidden_start_is_shown() -> None:
    assert option(planned(video(start_s=-1.3), audio(start_s=-1.0)), "-avoid_negative_ts") == "make_zero"
    assert option(planned(video(start_s=-0.4), audio()), "-avoid_negative_ts") is None


def test_both_start_together_however_late() -> None:
    assert "delay_moov" in (option(planned(video(start_s=100.0), audio(start_s=100.1)), "-movflags") or "")


def test_the_muxer_makes_small_fragments_and_no_metadata() -> None:
    args = planned(video()).output_args
    assert " ".join(args).endswith(
        "-map_metadata:g -1 -map_chapters -1 -write_tmcd 0 -threads 4 -strict -2"
        " -frag_size 1000000 -frag_duration 2000000 -f mp4 pipe:1"
    )
