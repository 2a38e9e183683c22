"""Uploads to a real local cluster: formats, failures of every process on the way, and what is left afterwards."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.support.clips import ClipStore
from tests.support.dev_cluster import DevCluster, dev_cluster, until
from vstack import checksums, errors
from vstack.dev import programs, proof
from vstack.dev.sample import make_sample
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.rpc.uploader import UploaderClient
from vstack.units import MAX_CHUNK_BYTES
from vstack.wire.metadata import Manifest
from vstack.wire.uploader import UploadStatus

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

PHASES = ("processing", "chunking", "registering", "uploading_chunks", "finalizing", "completed")
LONG_S = 120
LONG_MBPS = 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with dev_cluster(tmp_path_factory.mktemp("uploads")) as running:
        yield running


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(tmp_path_factory.mktemp("clips"), programs.media().ffmpeg)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough that something can happen while it is being stored."""
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    asyncio.run(make_sample(path, ffmpeg=programs.media().ffmpeg, seconds=LONG_S, mbps=LONG_MBPS))
    return path


@dataclass
class Uploader:
    """What a client of the cluster sees while it uploads."""

    cluster: DevCluster
    session: aiohttp.ClientSession
    seen: list[UploadStatus] = field(default_factory=list)

    @property
    def client(self) -> UploaderClient:
        return UploaderClient(self.session, self.cluster.endpoints.uploader)

    @property
    def metadata(self) -> MetadataClient:
        return MetadataClient(self.session, self.cluster.endpoints.metadata)

    async def upload(self, file: Path, title: str = "A title") -> UploadStatus:
        accepted = await self.client.upload(file, title)
        return await self.client.wait(accepted.upload_session_id, self.seen.append, poll_interval_s=0.02)

    async def until_storing(self, session_id: str, chunks: int = 3) -> None:
        """Wait until some chunks are committed and more are to come."""
        async with asyncio.timeout(60):
            while (status := await self.client.status(session_id)).chunks_committed < chunks:
                assert status.status not in ("completed", "failed"), status
                await asyncio.sleep(0.01)
        assert status.status == "uploading_chunks", status

    async def check_stored(self, video_id: str, *, copies: int = 3) -> bytes:
        """Every chunk is whole on at least `copies` of the nodes that the manifest names; the bytes of the video."""
        manifest = await self.metadata.manifest(video_id)
        check_manifest(manifest)
        storage = StorageClient(self.session)
        whole = []
        for chunk in manifest.chunks:
            read = [data async for data in self._copies(storage, chunk.chunk_id, chunk.replicas)]
            assert len(read) >= copies, (chunk, len(read))
            assert {checksums.text(hashlib.sha256(data).hexdigest()) for data in read} == {chunk.checksum}
            whole.append(read[0])
        return b"".join(whole)

    async def _copies(self, storage: StorageClient, chunk_id: str, urls: tuple[str, ...]) -> AsyncIterator[bytes]:
        for url in urls:
            with contextlib.suppress(errors.RemoteError, errors.NotFoundError):
                yield await storage.get_chunk(url, chunk_id, stall_timeout_s=1)

    async def check_gone(self, video_id: str) -> None:
        """Neither a row nor a chunk nor a file is left of an upload."""
        with pytest.raises(errors.NotFoundError):
            await self.metadata.video(video_id)
        storage = StorageClient(self.session)
        async with asyncio.timeout(60):
            for url in self.cluster.endpoints.storage:
                while (await storage.inventory_page(url, None, video_id=video_id)).chunks:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        assert self.received == []

    @property
    def received(self) -> list[str]:
        return [path.name for path in self.cluster.directory.glob("**/incoming/*")]


def check_manifest(manifest: Manifest) -> None:
    assert manifest.status == "active"
    assert [chunk.sequence_num for chunk in manifest.chunks] == list(range(manifest.total_chunks))
    assert all(0 < chunk.size_bytes <= MAX_CHUNK_BYTES for chunk in manifest.chunks)
    assert all(chunk.duration_sec <= 10 for chunk in manifest.chunks)
    assert manifest.init_size_bytes > 0
    assert sum(segment.count for segment in manifest.segments) == manifest.total_chunks
    assert abs(sum(chunk.duration_sec for chunk in manifest.chunks) - manifest.duration_sec) < 0.01


@pytest.fixture
async def uploader(cluster: DevCluster) -> AsyncIterator[Uploader]:
    async with new_session() as session:
        yield Uploader(cluster, session)


@pytest.mark.parametrize("clip", ["mp4", "mov", "mkv", "webm-vp9", "avi", "flv", "no-audio", "sync-webm-vp8-vorbis"])
async def test_a_video_of_every_format_is_stored(uploader: Uploader, clips: ClipStore, clip: str) -> None:
    if clips.missing_encoders(clip):
        pytest.skip(f"this ffmpeg lacks {clips.missing_encoders(clip)}")
    path = await asyncio.to_thread(clips.path, clip)
    status = await uploader.upload(path, f'Ein Film: {clip} ✓ "quoted"')
    assert status.status == "completed", status
    assert status.progress == 100
    assert status.filename == path.name
    assert status.size_bytes == path.stat().st_size
    assert status.error is None
    manifest = await uploader.metadata.manifest(status.video_id)
    assert manifest.title == f'Ein Film: {clip} ✓ "quoted"'
    assert manifest.total_chunks == status.total_chunks == status.chunks_committed
    assert (await uploader.check_stored(status.video_id))[4:8] == b"ftyp"
    assert uploader.received == []


async def test_progress_is_honest(uploader: Uploader, long_video: Path) -> None:
    status = await uploader.upload(long_video)
    assert status.status == "completed"
    progress = [seen.progress for seen in uploader.seen]
    assert progress == sorted(progress)
    phases = [PHASES.index(seen.status) for seen in uploader.seen]
    assert phases == sorted(phases)
    for seen in uploader.seen:
        assert (seen.progress == 100) == (seen.status == "completed")
        assert seen.total_chunks is None or seen.status in ("finalizing", "completed")
        if seen.status == "uploading_chunks":
            assert 50 <= seen.progress < 90
            assert seen.total_chunks is None
    storing = {seen.progress for seen in uploader.seen if seen.status == "uploading_chunks"}
    assert len(storing) > 5


@pytest.mark.parametrize(
    "name", ["text.mp4", "cut.mp4", "playlist.mp4", "sound-only.mp4", "zeros.mkv", "ends-early.mp4"]
)
async def test_what_is_no_video_fails_and_leaves_nothing(
    uploader: Uploader, clips: ClipStore, tmp_path: Path, name: str
) -> None:
    whole = (await asyncio.to_thread(clips.path, "mp4")).read_bytes()
    contents = {
        "text.mp4": b"This is no video.\n" * 100,
        "cut.mp4": whole[: len(whole) // 2],
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "sound-only.mp4": (await asyncio.to_thread(clips.path, "sound-only")).read_bytes(),
        "zeros.mkv": bytes(100_000),
        "ends-early.mp4": whole[:-1000],
    }
    (tmp_path / name).write_bytes(contents[name])
    status = await uploader.upload(tmp_path / name)
    assert status.status == "failed"
    assert status.error
    assert "\n" not in status.error
    assert str(uploader.cluster.directory) not in status.error
    assert status.total_chunks is None
    await uploader.check_gone(status.video_id)


async def test_ten_at_once(uploader: Uploader, clips: ClipStore) -> None:
    paths = [await asyncio.to_thread(clips.path, name) for name in ("mp4", "mkv", "0.5mbps", "5mbps", "mov")]
    done = await asyncio.gather(*(uploader.upload(path, str(path)) for path in paths * 2))
    assert [status.status for status in done] == ["completed"] * 10
    for status in done:
        await uploader.check_stored(status.video_id)


async def upload_while(
    uploader: Uploader, video: Path, disturb: Callable[[], object], *, copies: int = 2
) -> UploadStatus:
    """Start an upload, do something to the cluster while it is being stored, see that it succeeds."""
    accepted = await uploader.client.upload(video, "Disturbed")
    await uploader.until_storing(accepted.upload_session_id)
    await asyncio.to_thread(disturb)
    status = await uploader.client.wait(accepted.upload_session_id)
    assert status.status == "completed", status
    await uploader.check_stored(status.video_id, copies=copies)
    return status


@pytest.mark.parametrize("names", [("storage-2",), ("storage-1", "storage-4")], ids=["one", "two"])
async def test_nodes_that_die_on_the_way_fail_no_upload(
    uploader: Uploader, long_video: Path, names: tuple[str, ...]
) -> None:
    def kill() -> None:
        for name in names:
            os.kill(uploader.cluster.pid(name), signal.SIGKILL)

    try:
        status = await upload_while(uploader, long_video, kill, copies=1)
    finally:
        await asyncio.to_thread(uploader.cluster.revive)
    await uploader.check_stored(status.video_id, copies=2)  # the dead come back with what they had acknowledged


async def test_a_node_that_is_down_before_makes_copies_fall_elsewhere(uploader: Uploader, clips: ClipStore) -> None:
    path = await asyncio.to_thread(clips.path, "5mbps")
    await asyncio.to_thread(uploader.cluster.kill, "storage-3")
    try:
        status = await uploader.upload(path)
        assert status.status == "completed", status
        await uploader.check_stored(status.video_id, copies=2)
    finally:
        await asyncio.to_thread(uploader.cluster.revive)


async def test_a_node_that_hangs_fails_no_upload(uploader: Uploader, long_video: Path) -> None:
    pid = uploader.cluster.pid("storage-5")
    try:
        await upload_while(uploader, long_video, lambda: os.kill(pid, signal.SIGSTOP))
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(uploader.cluster.revive)


async def test_the_metadata_service_may_be_restarted(uploader: Uploader, long_video: Path) -> None:
    def restart() -> None:
        uploader.cluster.kill("metadata")
        uploader.cluster.revive()

    await upload_while(uploader, long_video, restart)


async def test_postgres_may_be_restarted(uploader: Uploader, long_video: Path) -> None:
    def restart() -> None:
        uploader.cluster.kill("postgres")
        uploader.cluster.revive()

    await upload_while(uploader, long_video, restart)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_uploader_that_ends_fails_no_upload(
    uploader: Uploader, long_video: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """What had begun is stored after the restart, and what was waiting: the same bytes, and they play as the source."""
    metadata = uploader.cluster.pid("metadata")
    os.kill(metadata, signal.SIGSTOP)  # no job gets far while the files are sent
    try:
        accepted = [await uploader.client.upload(long_video, f"Interrupted {place}") for place in range(3)]
    finally:
        os.kill(metadata, signal.SIGCONT)
    following = [
        asyncio.create_task(uploader.client.wait(one.upload_session_id, uploader.seen.append)) for one in accepted
    ]
    await uploader.until_storing(accepted[0].upload_session_id)
    pid = uploader.cluster.pid("uploader")
    os.kill(pid, number)
    await asyncio.to_thread(until, lambda: not Path(f"/proc/{pid}").exists(), "the uploader's end")
    assert len(uploader.received) == 3
    await asyncio.to_thread(uploader.cluster.revive)
    stored = [await uploader.check_stored((await one).video_id, copies=2) for one in following]
    assert "failed" not in {one.status for one in uploader.seen}
    for one in accepted:
        progress = [status.progress for status in uploader.seen if status.video_id == one.video_id]
        assert progress == sorted(progress)
    assert len(set(stored)) == 1, "the last one was not disturbed"
    played = tmp_path / "played.mp4"
    await asyncio.to_thread(uploader.cluster.play, accepted[0].video_id, played)
    assert played.read_bytes() == stored[0]
    await proof.check_streams(programs.media(), long_video, played)
    assert uploader.received == []


async def test_a_video_that_is_deleted_while_it_is_stored(uploader: Uploader, long_video: Path) -> None:
    accepted = await uploader.client.upload(long_video, "Deleted")
    await uploader.until_storing(accepted.upload_session_id)
    await uploader.metadata.delete_video(accepted.video_id)
    status = await uploader.client.wait(accepted.upload_session_id)
    assert status.status == "failed"
    assert status.error
    await uploader.check_gone(accepted.video_id)


def peak_resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def repeated(video: Path, target: Path, size_bytes: int) -> Path:
    """The video again and again, until the file is larger than `size_bytes`."""
    times = size_bytes // video.stat().st_size
    args = ["-v", "error", "-stream_loop", str(times), "-i", str(video), "-c", "copy", str(target)]
    subprocess.run([programs.media().ffmpeg, *args], check=True)
    assert target.stat().st_size > size_bytes
    return target


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_file(uploader: Uploader, long_video: Path, tmp_path: Path) -> None:
    """2 GB through an uploader whose resident memory stays below 200 MB."""
    whole = await asyncio.to_thread(repeated, long_video, tmp_path / "whole.mp4", 2_000_000_000)
    status = await uploader.upload(whole)
    whole.unlink()
    assert status.status == "completed", status
    assert peak_resident_bytes(uploader.cluster.pid("uploader")) < 200_000_000
