"""Files that are no video, broken video, or an attack: one clear sentence, and nothing left running or lying about."""

import asyncio
import gc
import random
import struct
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from tests.support import media_jobs
from tests.support.mp4 import box
from tests.uploader.media.conftest import Studio
from vstack.errors import InvalidMediaError, SettingsError
from vstack.uploader.media import MediaInfo, Stream, StreamKind, chunk_stream, plan, probe

pytestmark = pytest.mark.cluster


def children_of_this_process() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.fixture(params=["child", "unit"])
def studio(request: pytest.FixtureRequest, studio: Studio) -> Iterator[Studio]:
    """The same whoever runs the programs."""
    if request.param == "child":
        yield studio
    else:
        with media_jobs.listening(studio.ffmpeg, studio.ffprobe) as path:
            yield studio.behind(path)


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No child process, and no file beside the upload."""
    monkeypatch.chdir(tmp_path)
    children = children_of_this_process()
    yield
    gc.collect()
    assert children_of_this_process() <= children
    assert len(list(tmp_path.iterdir())) <= 1


async def consume(studio: Studio, path: Path) -> None:
    decided = plan(await studio.probe(path))
    async for _ in studio.chunks(path, decided):
        pass


async def refusal(studio: Studio, path: Path) -> str:
    """The sentence with which the file is refused by `probe` or by `chunk_stream`."""
    with pytest.raises(InvalidMediaError) as caught:
        await consume(studio, path)
    sentence = str(caught.value)
    assert str(path.parent) not in sentence
    assert "\n" not in sentence
    assert len(sentence) < 350
    return sentence


def playlist(secret: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Hello, this is text.\n" * 100,
        random.Random(1).randbytes(300_000),
        struct.pack(">I4s", 0xFFFFFFF0, b"moov") + bytes(1000),
        box(b"ftyp", b"isom", bytes(8)) + box(b"moov"),
        b"\x1aE\xdf\xa3" + b"\xff" * 1000,
        b"RIFF\xff\xff\xff\xffAVI LIST" + b"\xff" * 1000,
        b"FLV\x01\x05\x00\x00\x00\x09" + b"\xff" * 1000,
    ],
    ids=["empty", "text", "random", "huge-moov", "empty-moov", "matroska-noise", "avi-noise", "flv-noise"],
)
async def test_no_video(studio: Studio, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"upload.{suffix}"
    path.write_bytes(content)
    await refusal(studio, path)


async def test_a_zip_file(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "upload.mp4"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(studio.clip("mp4"))
    assert "not a readable MP4, MOV, MKV, WebM, AVI or FLV video" in await refusal(studio, path)


@pytest.mark.parametrize("name", ["upload.mp4", "upload.m3u8"])
async def test_a_playlist_that_points_at_local_files(studio: Studio, tmp_path: Path, name: str) -> None:
    """It names a good video: nothing but the whitelist stands between it and success (the second name opens it)."""
    path = tmp_path / name
    path.write_bytes(playlist(studio.clip("mp4")))
    assert "not a readable" in await refusal(studio, path)
    await refused_by_ffmpeg_too(studio, path, "hls")


async def test_a_concatenation_script_that_points_at_local_files(studio: Studio, tmp_path: Path) -> None:
    secret = studio.clip("mp4")
    path = secret.with_name("upload.mp4")
    path.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    try:
        assert "not a readable" in await refusal(studio, path)
        await refused_by_ffmpeg_too(studio, path, "concat")
    finally:
        path.unlink()


async def refused_by_ffmpeg_too(studio: Studio, path: Path, container: str) -> None:
    """ffmpeg is guarded by itself, whatever ffprobe let through."""
    forged = plan(MediaInfo(13.0, (Stream(0, StreamKind.VIDEO, "h264", width=320, height=180),), container))
    with pytest.raises(InvalidMediaError, match="cannot be read"):
        await anext(studio.chunks(path, forged))


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[str, list[str]]]:
    """A loopback server that only notes who connects."""
    seen: list[str] = []

    def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("connected")
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x.ts", seen


async def test_a_playlist_reaches_no_server(studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "upload.m3u8"
    async with listener() as (url, seen):
        path.write_bytes(f"#EXTM3U\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n".encode())
        await refusal(studio, path)
        assert seen == []


@pytest.mark.parametrize("name", ["mp4", "mp4-fragmented", "mkv", "avi", "webm-vp9", "flv"])
async def test_a_file_cut_off_half_way(studio: Studio, tmp_path: Path, name: str) -> None:
    whole = studio.clip(name)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sentence = await refusal(studio, path)
    assert any(word in sentence for word in ("moov atom not found", "cut off", "breaks off"))


async def test_a_movie_whose_last_second_is_missing(studio: Studio, tmp_path: Path) -> None:
    """moov comes first here, so ffmpeg alone would copy what is there and call it success."""
    whole = studio.clip("faststart").read_bytes()
    path = tmp_path / "upload.mp4"
    path.write_bytes(whole[:-1])
    assert await refusal(studio, path) == "the file is cut off: 1 bytes are missing at its end"


@pytest.mark.parametrize("name", ["sound-only", "cover-only"])
async def test_sound_without_a_picture(studio: Studio, name: str) -> None:
    assert await refusal(studio, studio.clip(name)) == "the file has no video stream"


async def test_a_small_file_cannot_unpack_to_a_large_one(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vstack.uploader.media.chunking._FREE_EXPANSION_BYTES", 0)
    monkeypatch.setattr("vstack.uploader.media.chunking._MAX_EXPANSION", 0.5)
    assert "far more than its size" in await refusal(studio, studio.clip("mp4"))


@pytest.mark.parametrize("seed", range(12))
async def test_damage_ends_in_an_error_or_in_a_stream(studio: Studio, tmp_path: Path, seed: int) -> None:
    """Never a hang, a crash of ours or anything left: mostly damage to headers, where it hurts."""
    draw = random.Random(seed)
    name = ("faststart", "mkv", "avi", "flv")[seed % 4]
    data = bytearray(studio.clip(name).read_bytes())
    for _ in range(draw.choice([1, 20, 400])):
        data[draw.randrange(min(len(data), 12_000 if seed % 3 else len(data)))] = draw.randrange(256)
    path = tmp_path / f"upload.{name}"
    path.write_bytes(data)
    try:
        decided = plan(await studio.probe(path, timeout_s=30))
        async for chunk in studio.chunks(path, decided, timeout_s=30):
            assert chunk.data
    except InvalidMediaError as error:
        assert str(tmp_path) not in str(error)  # noqa: PT017 - either outcome is right


async def test_closing_the_stream_early_ends_ffmpeg(studio: Studio) -> None:
    path = studio.clip("20mbps")
    decided = plan(await studio.probe(path))
    async with aclosing(studio.chunks(path, decided)) as chunks:
        assert (await anext(chunks)).number == 0
        assert len(children_of_this_process()) >= 1


async def test_cancelling_the_task_ends_ffmpeg(studio: Studio) -> None:
    path = studio.clip("20mbps")
    decided = plan(await studio.probe(path))
    first = asyncio.Event()

    async def work() -> None:
        async with aclosing(studio.chunks(path, decided)) as chunks:
            async for _ in chunks:
                first.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_ends_ffmpeg(studio: Studio) -> None:
    path = studio.clip("long-gop")
    decided = plan(await studio.probe(path))
    with pytest.raises(InvalidMediaError, match="took too long"):
        await anext(studio.chunks(path, decided, timeout_s=0.001))


async def test_missing_programs_are_the_operators_business(studio: Studio) -> None:
    path = studio.clip("mp4")
    with pytest.raises(SettingsError, match="cannot run"):
        await probe(path, ffprobe="/nonexistent/ffprobe")
    decided = plan(await studio.probe(path))
    with pytest.raises(SettingsError, match="cannot run"):
        await anext(chunk_stream(path, decided, ffmpeg="/nonexistent/ffmpeg"))
