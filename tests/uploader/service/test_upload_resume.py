"""Uploads over the end of the uploader: killed, told to stop, without power. What was acknowledged is finished."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import pytest

from tests.support.clips import ClipStore
from tests.uploader.service.cluster import FakeCluster, eventually
from tests.uploader.service.process import UploaderProcess, uploader_process
from tests.uploader.service.running import BOUNDARY, good_form, running_service, settings_for
from vstack.dev import programs
from vstack.errors import RemoteError
from vstack.rpc.uploader import UploaderClient
from vstack.settings import UploaderSettings
from vstack.uploader import app as uploader_app
from vstack.uploader import chunkwrite, progress
from vstack.uploader import job as uploader_job
from vstack.uploader.sessions import Session, SessionStore
from vstack.wire.uploader import UploadAccepted, UploadPhase, UploadStatus

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(tmp_path_factory.mktemp("clips"), programs.media().ffmpeg)


@pytest.fixture
def clip(clips: ClipStore) -> Path:
    return clips.path("5mbps")


@pytest.fixture(scope="module")
def old_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that is converted, to several chunks."""
    path = tmp_path_factory.mktemp("clips") / "old.avi"
    args = ["-v", "error", "-f", "lavfi", "-i", "testsrc2=duration=25:size=640x360", "-c:v", "mpeg4", "-q:v", "3"]
    subprocess.run([programs.media().ffmpeg, *args, str(path)], check=True)
    return path


@pytest.fixture
async def uploader(five_nodes: FakeCluster, tmp_path: Path) -> AsyncIterator[UploaderProcess]:
    async with uploader_process(tmp_path, five_nodes) as started:
        yield started


def cut(cluster: FakeCluster, video_id: str) -> list[tuple[int, str, bool]]:
    """Number, checksum and last mark of every committed chunk of a video."""
    decrees = (decree for decree in cluster.metadata.decrees.values() if decree.video_id == video_id)
    return sorted((decree.sequence_num, decree.checksum, decree.last) for decree in decrees)


def puts(cluster: FakeCluster, chunk_id: str) -> int:
    return sum(node.requests.count(f"PUT /chunk/{chunk_id}") for node in cluster.nodes.values())


def restrain(cluster: FakeCluster, chunks: int) -> None:
    """Let so many chunks be committed and no more."""
    cluster.metadata.hold_after = chunks
    cluster.metadata.released.clear()


def release(cluster: FakeCluster) -> None:
    cluster.metadata.hold_after = None
    cluster.metadata.released.set()


@pytest.mark.parametrize("number", [SIGKILL, SIGTERM])
@pytest.mark.parametrize("converted", [False, True], ids=["copied", "converted"])
async def test_every_acknowledged_upload_is_finished_by_the_next_process(
    uploader: UploaderProcess,
    five_nodes: FakeCluster,
    clip: Path,
    old_clip: Path,
    number: Signals,
    *,
    converted: bool,
) -> None:
    clip = old_clip if converted else clip
    whole = await uploader.client.wait((await uploader.client.upload(clip, "Whole")).upload_session_id)
    expected = cut(five_nodes, whole.video_id)
    assert len(expected) > 2
    before = len(expected) + 1
    restrain(five_nodes, before)
    accepted = [await uploader.client.upload(clip, f"Interrupted {place}") for place in range(3)]
    seen: dict[str, list[UploadStatus]] = {one.upload_session_id: [] for one in accepted}

    async def follow(one: UploadAccepted) -> UploadStatus:
        watched = seen[one.upload_session_id].append
        return await uploader.client.wait(one.upload_session_id, watched, poll_interval_s=0.02)

    following = [asyncio.create_task(follow(one)) for one in accepted]
    await eventually(lambda: len(five_nodes.metadata.decrees) >= before)
    done = set(five_nodes.metadata.decrees)
    await eventually(lambda: sum(status[-1].chunks_committed for status in seen.values() if status) >= 1)

    uploader.signal(number)
    assert await uploader.ended() == (0 if number == SIGTERM else -number)
    assert set(five_nodes.metadata.decrees) == done
    assert not five_nodes.metadata.deleted
    assert set(uploader.received) == set(seen)
    written = {chunk_id: puts(five_nodes, chunk_id) for chunk_id in done}
    release(five_nodes)
    await uploader.start()

    for status in await asyncio.gather(*following):
        assert status.status == "completed", status
        assert cut(five_nodes, status.video_id) == expected
        assert status.total_chunks == status.chunks_committed == len(expected)
        assert five_nodes.metadata.statuses[status.video_id] == "active"
    assert {chunk_id: puts(five_nodes, chunk_id) for chunk_id in done} == written, "a committed chunk was sent again"
    for statuses in seen.values():
        for figures in ([one.progress for one in statuses], [one.chunks_committed for one in statuses]):
            assert figures == sorted(figures)
        phases = [list(progress.RANGES).index(one.status) for one in statuses if one.status != "completed"]
        assert phases == sorted(phases)
    assert uploader.received == []
    assert len(uploader.sessions) == 4
    await eventually(lambda: not list((uploader.data_dir / "sessions").glob("*.tmp")))
    assert await uploader.metric("vstack_uploader_resumed_uploads_total") == 3


async def test_a_file_that_brings_the_process_down_is_given_up(
    uploader: UploaderProcess, five_nodes: FakeCluster, clip: Path
) -> None:
    restrain(five_nodes, 0)
    accepted = await uploader.client.upload(clip, "Poison")
    for crash in range(1, uploader_job.MAX_ATTEMPTS + 1):
        await eventually(lambda: uploader.stored(accepted.upload_session_id).attempts == crash)  # noqa: B023 - at once
        await eventually(lambda: uploader.stored(accepted.upload_session_id).status == "uploading_chunks")
        uploader.signal(SIGKILL)
        await uploader.ended()
        await uploader.start()
    status = await uploader.client.wait(accepted.upload_session_id)
    assert (status.status, status.error) == ("failed", uploader_job.CRASHED)
    assert five_nodes.metadata.deleted == [accepted.video_id]
    assert uploader.received == []


def ffmpegs(process: int) -> list[int]:
    """The processes below this one that run ffmpeg itself."""
    children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    below = [found for child in children for found in ffmpegs(child)]
    return below + [child for child in children if b"-nostdin\0" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("number", [SIGKILL, SIGTERM])
async def test_an_ffmpeg_that_somebody_ends_is_not_the_fault_of_the_file(
    uploader: UploaderProcess, five_nodes: FakeCluster, clips: ClipStore, number: Signals
) -> None:
    """As when the host shuts down, and takes the media jobs along before the uploader."""
    restrain(five_nodes, 0)
    accepted = await uploader.client.upload(await asyncio.to_thread(clips.path, "20mbps"), "Shot at")
    await eventually(lambda: accepted.video_id in five_nodes.metadata.videos)
    (ffmpeg,) = ffmpegs(uploader.pid)
    os.kill(ffmpeg, number)
    release(five_nodes)
    status = await uploader.client.wait(accepted.upload_session_id)
    assert status.status == "completed", status
    assert await uploader.metric("vstack_uploader_retries_total", what="job") == 1


async def test_an_orderly_stop_and_a_run_that_gets_further_are_no_attempts(
    uploader: UploaderProcess, five_nodes: FakeCluster, clip: Path
) -> None:
    restrain(five_nodes, 0)
    accepted = await uploader.client.upload(clip, "Often interrupted")
    for _ in range(uploader_job.MAX_ATTEMPTS + 1):
        await eventually(lambda: uploader.stored(accepted.upload_session_id).attempts == 1)
        uploader.signal(SIGTERM)
        assert await uploader.ended() == 0
        assert uploader.stored(accepted.upload_session_id).attempts == 0
        await uploader.start()
    for committed in (1, 2, 3):  # each run after the first crash commits one chunk more
        await eventually(lambda: uploader.stored(accepted.upload_session_id).attempts >= 1)
        uploader.signal(SIGKILL)
        await uploader.ended()
        assert uploader.stored(accepted.upload_session_id).attempts == 1
        five_nodes.metadata.hold_after = committed
        await uploader.start()
        await eventually(lambda: uploader.stored(accepted.upload_session_id).chunks_committed >= committed)  # noqa: B023
    release(five_nodes)
    assert (await uploader.client.wait(accepted.upload_session_id)).status == "completed"


async def left_by_a_crash(settings: UploaderSettings, session: Session, file: Path | None) -> None:
    """A data directory as an uploader leaves it that loses power with this session on its disk."""
    incoming = Path(settings.data_dir) / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    if file is not None:
        (incoming / session.session_id).write_bytes(file.read_bytes())
    store = SessionStore(Path(settings.data_dir) / "sessions")
    store.load()
    await store.save(session)
    store.close()


def session_of(phase: UploadPhase, **changes: object) -> Session:
    fields: dict[str, object] = {
        "session_id": f"session-{phase}",
        "video_id": f"video-{phase}",
        "title": "t",
        "filename": "f.mp4",
        "size_bytes": 3,
        "started_at": "2026-01-01T00:00:00.000Z",
        "attempts": 1,
        "registered": phase not in ("processing", "chunking"),
    }
    return Session(**{**fields, **changes}).moved(phase)  # type: ignore[arg-type]


async def test_a_crash_in_every_phase_is_put_right(five_nodes: FakeCluster, tmp_path: Path, clip: Path) -> None:
    settings = settings_for(tmp_path, five_nodes.metadata.url)
    phases: tuple[UploadPhase, ...] = ("processing", "chunking", "registering", "uploading_chunks")
    for phase in phases:
        await left_by_a_crash(settings, session_of(phase), clip)
    (Path(settings.data_dir) / "incoming" / "received-in-part").write_bytes(b"abc")
    async with running_service(settings) as service:
        assert "received-in-part" not in service.received
        for phase in phases:
            before = session_of(phase).progress
            seen: list[UploadStatus] = []
            status = await service.client.wait(f"session-{phase}", seen.append, poll_interval_s=0.01)
            assert status.status == "completed", status
            assert all(one.progress >= before for one in seen)
        assert service.received == []


@pytest.mark.parametrize("with_file", [True, False])
async def test_a_crash_while_the_video_is_activated_is_put_right(
    five_nodes: FakeCluster, tmp_path: Path, clip: Path, *, with_file: bool
) -> None:
    settings = settings_for(tmp_path, five_nodes.metadata.url)
    async with running_service(settings_for(tmp_path / "before", five_nodes.metadata.url)) as service:
        done = await service.client.wait((await service.client.upload(clip, "t")).upload_session_id)
    session = session_of("finalizing", video_id=done.video_id, total_chunks=done.total_chunks)
    await left_by_a_crash(settings, session, clip if with_file else None)
    requests = [list(node.requests) for node in five_nodes.nodes.values()]
    async with running_service(settings) as service:
        assert (await service.client.wait(session.session_id)).status == "completed"
        assert service.received == []
    assert [change.total_chunks for change in five_nodes.metadata.changes] == [done.total_chunks] * 2
    assert requests == [list(node.requests) for node in five_nodes.nodes.values()], "all chunks were there"


async def test_a_received_file_that_is_lost_fails_its_upload(
    five_nodes: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader_app, "REAP_EVERY_S", 0.05)
    settings = settings_for(tmp_path, five_nodes.metadata.url)
    session = session_of("uploading_chunks")
    five_nodes.metadata.videos[session.video_id] = five_nodes.metadata.statuses[session.video_id] = "there"  # type: ignore[assignment]
    await left_by_a_crash(settings, session, None)
    async with running_service(settings) as service:
        status = await service.client.status(session.session_id)
        assert (status.status, status.error) == ("failed", uploader_job.LOST)
        assert status.progress == session.progress
        await eventually(lambda: five_nodes.metadata.deleted == [session.video_id])


async def test_a_video_that_was_given_up_meanwhile_fails_its_upload(
    five_nodes: FakeCluster, tmp_path: Path, clip: Path
) -> None:
    settings = settings_for(tmp_path, five_nodes.metadata.url)
    session = session_of("uploading_chunks")
    five_nodes.metadata.statuses[session.video_id] = "failed"
    await left_by_a_crash(settings, session, clip)
    async with running_service(settings) as service:
        status = await service.client.wait(session.session_id)
        assert (status.status, status.error) == ("failed", uploader_job.GIVEN_UP)
        assert service.received == []


@pytest.mark.parametrize("committed", [2, 0], ids=["committed", "only stored"])
async def test_a_file_that_is_cut_differently_now_fails_and_leaves_nothing(
    uploader: UploaderProcess, five_nodes: FakeCluster, clips: ClipStore, committed: int
) -> None:
    """As after an upgrade of ffmpeg: here another file takes the place of the one that was received."""
    restrain(five_nodes, committed)
    accepted = await uploader.client.upload(clips.path("5mbps"), "Cut twice")
    await eventually(lambda: len(five_nodes.metadata.decrees) >= committed)
    await eventually(lambda: len(five_nodes.copies(f"{accepted.video_id}-chunk-000")) == 3)
    uploader.signal(SIGKILL)
    await uploader.ended()
    (uploader.data_dir / "incoming" / accepted.upload_session_id).write_bytes(clips.path("mp4").read_bytes())
    five_nodes.metadata.hold_after = None  # what was held back stays so
    await uploader.start()
    status = await uploader.client.wait(accepted.upload_session_id)
    assert (status.status, status.error) == ("failed", chunkwrite.CUT_DIFFERENTLY)
    assert five_nodes.metadata.deleted == [accepted.video_id]
    assert uploader.received == []


async def half_sent(uploader: UploaderProcess, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which half of an upload has been sent, and received."""
    reader, writer = await asyncio.open_connection("127.0.0.1", uploader.port)
    head = f"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
    await eventually(lambda: uploader.received != [])
    return reader, writer


async def test_a_stopping_uploader_receives_to_the_end_and_takes_nothing_new(
    uploader: UploaderProcess, five_nodes: FakeCluster, clip: Path
) -> None:
    body = good_form(clip.read_bytes())
    reader, writer = await half_sent(uploader, body)
    uploader.signal(SIGTERM)
    async with asyncio.timeout(20):
        while (await uploader.get("/health")).status != 503:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    refused = await uploader.post(good_form())
    assert (refused.status, refused.body["code"]) == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    later = asyncio.create_task(uploader.client.upload(clip, "Later"))
    writer.write(body[len(body) // 2 :])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert await uploader.ended() == 0
    assert len(uploader.received) == 1
    (name,) = uploader.sessions
    await uploader.start()
    for session_id in (name.removesuffix(".json"), (await later).upload_session_id):
        assert (await uploader.client.wait(session_id)).status == "completed"
    assert len(five_nodes.metadata.videos) == 2
    assert uploader.received == []


async def test_a_drain_is_bounded_and_what_it_cuts_off_leaves_nothing(
    five_nodes: FakeCluster, tmp_path: Path, clip: Path
) -> None:
    async with uploader_process(tmp_path, five_nodes, drain_s=0.2) as uploader:
        reader, writer = await half_sent(uploader, good_form(clip.read_bytes()))
        uploader.signal(SIGTERM)
        assert await uploader.ended() == 0
        assert await reader.read() == b""
        writer.close()
        assert uploader.received == uploader.sessions == []


async def test_a_client_that_is_impatient_says_so(uploader: UploaderProcess, clip: Path) -> None:
    uploader.signal(SIGKILL)
    await uploader.ended()
    client = UploaderClient(uploader.session, uploader.url, patience_s=0.3)
    with pytest.raises(RemoteError):
        await client.wait("anything")
    with pytest.raises(RemoteError):
        await client.upload(clip, "t")
