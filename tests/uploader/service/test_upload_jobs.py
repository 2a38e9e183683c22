"""Whole uploads with real ffmpeg to the cluster in this process, where every failure can be arranged."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.clips import ClipStore
from tests.uploader.service.cluster import FakeCluster, eventually
from tests.uploader.service.running import Service, running_service, settings_for
from vstack import errors
from vstack.dev import programs
from vstack.errors import ConflictError, InvalidRequestError, RemoteError, UnavailableError
from vstack.rpc.uploader import UploaderClient
from vstack.uploader import app as uploader_app
from vstack.uploader import job as uploader_job
from vstack.wire.uploader import UploadStatus

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(tmp_path_factory.mktemp("clips"), programs.media().ffmpeg)


def size_of(path: Path) -> int:
    return path.stat().st_size


@pytest.fixture
def clip(clips: ClipStore) -> Path:
    return clips.path("5mbps")


@pytest.fixture
async def uploader(five_nodes: FakeCluster, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(settings_for(tmp_path, five_nodes.metadata.url)) as started:
        yield started


async def upload(uploader: Service, clip: Path) -> UploadStatus:
    accepted = await uploader.client.upload(clip, "A title")
    return await uploader.client.wait(accepted.upload_session_id, poll_interval_s=0.02)


def no_ffmpeg() -> bool:
    """Whether this process has no child that works on a file."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return not any("ffmpeg" in Path(f"/proc/{child}/cmdline").read_text() for child in children)


async def test_a_whole_upload(uploader: Service, five_nodes: FakeCluster, clip: Path) -> None:
    status = await upload(uploader, clip)
    assert status.status == "completed", status
    (change,) = five_nodes.metadata.changes
    assert change.status == "active"
    assert change.total_chunks == status.total_chunks == len(five_nodes.metadata.decrees)
    assert change.duration_sec is None  # that of the chunks, which the metadata service knows
    for chunk_id, decree in five_nodes.metadata.decrees.items():
        assert five_nodes.copies(chunk_id) == set(decree.node_ids)
        assert len(decree.node_ids) == 3
    last = [decree for decree in five_nodes.metadata.decrees.values() if decree.last]
    assert [decree.sequence_num for decree in last] == [len(five_nodes.metadata.decrees) - 1]
    assert uploader.received == []
    assert await uploader.metric("vstack_uploader_uploads_total", outcome="completed") == 1
    assert await uploader.metric("vstack_uploader_received_bytes_total") == size_of(clip)
    assert await uploader.metric("vstack_uploader_ffmpeg_seconds_total") > 0
    assert await uploader.metric("vstack_uploader_active_jobs") == 0
    assert (await uploader.get("/health")).body["active_uploads"] == 0


async def test_a_commit_that_is_refused_fails_the_upload(
    uploader: Service, five_nodes: FakeCluster, clip: Path
) -> None:
    five_nodes.metadata.refuse_commit = ConflictError("the chunk was given up")
    status = await upload(uploader, clip)
    assert status.status == "failed"
    assert "given up" in (status.error or "")
    assert five_nodes.metadata.deleted == [status.video_id]
    assert uploader.received == []
    await eventually(no_ffmpeg)


async def test_what_cannot_be_cleaned_up_now_is_cleaned_up_later(
    five_nodes: FakeCluster, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader_app, "REAP_EVERY_S", 0.05)
    monkeypatch.setattr(uploader_job, "CLEANUP_TIMEOUT_S", 0.3)
    metadata = five_nodes.metadata
    settings = settings_for(tmp_path, metadata.url)
    async with running_service(settings) as service:
        metadata.refuse_commit = ConflictError("no")
        metadata.refuse_delete = UnavailableError("the database is away")
        status = await upload(service, clip)
        assert status.status == "failed"
        assert not metadata.deleted
    async with running_service(settings) as again:
        assert (await again.client.status(service.sessions[0].removesuffix(".json"))).status == "failed"
        metadata.refuse_delete = None
        await eventually(lambda: metadata.deleted == [status.video_id])


async def test_a_job_that_takes_too_long_fails(five_nodes: FakeCluster, tmp_path: Path, clip: Path) -> None:
    for node in five_nodes.nodes.values():
        node.hang()
    async with running_service(settings_for(tmp_path, five_nodes.metadata.url, job_timeout_s=8)) as service:
        status = await upload(service, clip)
        assert status.status == "failed"
        assert status.error == "not done after 8 s"
        assert five_nodes.metadata.deleted == [status.video_id]
        assert service.received == []
    await eventually(no_ffmpeg)


async def test_the_metadata_service_may_be_away_at_the_start(
    uploader: Service, five_nodes: FakeCluster, clip: Path
) -> None:
    five_nodes.metadata.down = True
    accepted = await uploader.client.upload(clip, "A title")
    async with asyncio.timeout(20):
        while await uploader.metric("vstack_uploader_retries_total", what="metadata") < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await uploader.client.status(accepted.upload_session_id)).status == "registering"
    five_nodes.metadata.down = False
    assert (await uploader.client.wait(accepted.upload_session_id)).status == "completed"


async def test_the_client_streams_and_reports(uploader: Service, clip: Path) -> None:
    told: list[tuple[int, int]] = []
    accepted = await uploader.client.upload(clip, 'Ä "title"', lambda sent, total: told.append((sent, total)))
    assert told[-1] == (size_of(clip), size_of(clip))
    assert [sent for sent, _ in told] == sorted(sent for sent, _ in told)
    seen: list[UploadStatus] = []
    last = await uploader.client.wait(accepted.upload_session_id, seen.append)
    assert seen[-1] == last
    assert last.title == 'Ä "title"'


async def test_the_client_says_what_the_uploader_says(uploader: Service, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="title must be"):
        await uploader.client.upload(clip, "x" * 201)
    wrong = tmp_path / "film.txt"
    wrong.write_bytes(bytes(20_000_000))  # refused while it is being sent
    with pytest.raises(InvalidRequestError, match="must be one of"):
        await uploader.client.upload(wrong, "t")
    with pytest.raises(InvalidRequestError, match="cannot read"):
        await uploader.client.upload(tmp_path / "missing.mp4", "t")
    with pytest.raises(errors.NotFoundError):
        await uploader.client.status("unknown")
    with pytest.raises(RemoteError):
        await UploaderClient(uploader.session, "http://127.0.0.1:9", patience_s=0).upload(clip, "t")


async def test_a_title_cannot_break_out_of_the_form(uploader: Service, tmp_path: Path, clip: Path) -> None:
    strange = tmp_path / 'a"; filename="b.txt\r\nX: y.mp4'
    shutil.copyfile(clip, strange)
    accepted = await uploader.client.upload(strange, "fine")
    status = await uploader.client.status(accepted.upload_session_id)
    assert status.filename.endswith("y.mp4")
    with pytest.raises(InvalidRequestError):
        await uploader.client.upload(clip, 't\r\n--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nother')
