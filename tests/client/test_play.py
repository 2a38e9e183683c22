"""The smart client against real servers that misbehave: the right bytes come out, or a clear error."""

import asyncio
import hashlib
import io
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.client import fakes
from tests.client.fakes import DEADLINE_S, VIDEO, Behaviour, FakeCluster, FakeMetadata, cluster, until
from vstack.client import PlaybackReport, SmartClient, smart_client
from vstack.core.playback.buffer import BufferRules
from vstack.errors import InvalidRequestError, NotFoundError, OutputError, RemoteError, UnavailableError
from vstack.rpc.http import RETRIES, new_session

FAULTS = (
    fakes.hang_before_headers,
    fakes.hang_mid_body,
    fakes.flip_a_bit,
    fakes.send_too_much,
    fakes.lack,
    fakes.crash,
    fakes.reset,
    fakes.cut_short,
    fakes.trickle,
)


@pytest.fixture
async def three() -> AsyncIterator[FakeCluster]:
    async with cluster() as made:
        yield made


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """Whatever a test does, its client leaves no task."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if "vstack/client" in repr(task.get_coro())]
    assert left == []


async def play(made: FakeCluster, *, output: io.BytesIO | Path | None = None, speed: float = 0) -> PlaybackReport:
    async with asyncio.timeout(DEADLINE_S):
        return await SmartClient([made.metadata.url]).play_video(VIDEO, output=output, speed=speed)


async def test_the_example_of_the_api_document(three: FakeCluster) -> None:
    report = await play(three)
    assert report.video_id == VIDEO
    assert report.title == "A video"
    assert (report.chunks, report.size_bytes, report.sha256) == (6, 1_200_000, three.sha256)
    assert sum(report.downloads.values()) == 6
    assert report.startup_s > 0
    assert report.throughput_mbps > 0
    assert (report.stalls, report.stall_s, report.failovers, report.failed_downloads) == (0, 0.0, 0, {})
    assert three.metadata.views == [VIDEO]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_one_bad_node_changes_nothing_in_what_comes_out(three: FakeCluster, fault: Behaviour) -> None:
    three.nodes[0].behave = fault
    out = io.BytesIO()
    report = await play(three, output=out)
    assert out.getvalue() == three.content
    assert report.sha256 == three.sha256
    assert three.nodes[0].url not in report.downloads or fault is fakes.trickle
    if three.nodes[0].requests and fault is not fakes.trickle:
        assert sum(report.failed_downloads.values()) >= 1
        assert report.failovers >= 1


async def test_a_dead_node_is_left_at_once(three: FakeCluster) -> None:
    await three.nodes[0].down()
    report = await play(three)
    assert report.sha256 == three.sha256
    assert set(report.failed_downloads) <= {"unreachable"}


async def test_a_node_that_dies_while_it_sends_is_left(three: FakeCluster) -> None:
    victim = three.nodes[0]
    sending = asyncio.Event()

    async def die(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        sending.set()
        return await fakes.hang_mid_body(node, request, data)

    for node in three.nodes:
        node.behave = die
    playing = asyncio.create_task(play(three))
    await sending.wait()
    for node in three.nodes[1:]:
        node.behave = fakes.serve
    await victim.down()
    assert (await playing).sha256 == three.sha256


@pytest.mark.parametrize("fault", [fakes.hang_before_headers, fakes.hang_mid_body])
async def test_real_time_playback_does_not_stall_on_a_hung_node(fault: Behaviour) -> None:
    async with cluster(chunk_count=4, chunk_s=0.5) as made:
        made.nodes[0].behave = fault
        rules = BufferRules(target_s=30, low_water_s=15, start_s=2)
        async with asyncio.timeout(DEADLINE_S):
            report = await SmartClient([made.metadata.url], rules=rules).play_video(VIDEO)
        assert report.sha256 == made.sha256
        assert report.stalls == 0
        assert report.played_s == pytest.approx(2.0)
        assert report.elapsed_s >= 2.0


async def test_the_request_to_a_hung_node_is_ended_when_the_node_is_left() -> None:
    async with cluster(chunk_count=12) as made:
        hung = made.nodes[0]
        hung.behave = fakes.hang_mid_body
        playing = asyncio.create_task(play(made, speed=1))
        await until(lambda: bool(hung.requests) and hung.active == 0)
        assert not playing.done()
        playing.cancel()
        await asyncio.wait({playing})


async def test_wrong_bytes_on_every_replica_are_never_handed_out(three: FakeCluster) -> None:
    for node in three.nodes:
        node.behave = fakes.flip_a_bit
    out = io.BytesIO()
    with pytest.raises(UnavailableError, match="corrupt"):
        await SmartClient([three.metadata.url], patience_s=0.5).play_video(VIDEO, output=out, speed=0)
    assert out.getvalue() == b""
    assert three.metadata.views == []


async def test_a_chunk_that_nobody_has_ends_in_a_clear_error(three: FakeCluster) -> None:
    chunk_id = list(three.chunks)[3]
    for node in three.nodes:
        node.chunks = {name: data for name, data in three.chunks.items() if name != chunk_id}
    out = io.BytesIO()
    with pytest.raises(UnavailableError, match=f"{chunk_id}.*missing"):
        await SmartClient([three.metadata.url], patience_s=1).play_video(VIDEO, output=out, speed=0)
    assert three.content.startswith(out.getvalue())
    assert len(out.getvalue()) == 3 * 200_000
    assert three.metadata.manifest_requests > 1


async def test_chunks_that_have_moved_are_found_through_a_fresh_manifest(three: FakeCluster) -> None:
    three.metadata.manifests[VIDEO] = three.manifest(chunk_s=4, nodes=three.nodes[:1])
    three.nodes[0].behave = fakes.lack

    async def moved(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        three.metadata.manifests[VIDEO] = three.manifest(chunk_s=4, nodes=three.nodes[1:])
        return await fakes.lack(node, request, data)

    three.nodes[0].behave = moved
    report = await play(three)
    assert report.sha256 == three.sha256
    assert three.nodes[0].url not in report.downloads


async def test_a_video_that_is_deleted_on_the_way_ends_in_not_found(three: FakeCluster) -> None:
    async def deleted(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        three.metadata.manifests.clear()
        return await fakes.lack(node, request, data)

    for node in three.nodes:
        node.behave = deleted
    with pytest.raises(NotFoundError, match="deleted"):
        await play(three)


async def test_metadata_may_go_away_while_a_video_plays(three: FakeCluster) -> None:
    async def cut(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        three.metadata.failing = True
        return await fakes.serve(node, request, data)

    for node in three.nodes:
        node.behave = cut
    report = await play(three)
    assert report.sha256 == three.sha256
    assert three.metadata.views == []  # it could not be counted, and nobody was disturbed


async def test_a_viewer_waits_for_a_metadata_service_that_cannot_answer_yet(
    three: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smart_client, "MANIFEST_PAUSE_S", 0.01)
    three.metadata.failing = True
    playing = asyncio.create_task(play(three))
    await until(lambda: three.metadata.manifest_requests > 2 * RETRIES)
    three.metadata.failing = False
    assert (await playing).sha256 == three.sha256


async def test_a_viewers_patience_for_the_manifest_ends(three: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smart_client, "MANIFEST_PAUSE_S", 0.01)
    three.metadata.failing = True
    with pytest.raises(UnavailableError, match="database"):
        await SmartClient([three.metadata.url], patience_s=0.1).play_video(VIDEO, speed=0)


async def test_nobody_waits_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RemoteError, match="Cannot connect"):
            await SmartClient([f"http://127.0.0.1:{port}"], patience_s=100 * DEADLINE_S).play_video(VIDEO)


async def test_a_view_is_counted_once_and_only_when_playback_starts(three: FakeCluster) -> None:
    async with SmartClient([three.metadata.url]) as client:
        session = await client.prepare(VIDEO, speed=0)
        assert three.metadata.views == []
        await session.run()
        assert three.metadata.views == [VIDEO]
        assert not session._downloads
        assert not session._parts
        assert not session._ready


async def test_several_metadata_urls_are_tried_in_turn(three: FakeCluster) -> None:
    dead, failing = FakeMetadata(), FakeMetadata(failing=True)
    await dead.up()
    await dead.down()
    await failing.up()
    try:
        client = SmartClient([dead.url, failing.url, three.metadata.url])
        report = await client.play_video(VIDEO, speed=0)
    finally:
        await failing.down()
    assert report.sha256 == three.sha256


async def test_unknown_videos_and_bad_requests(three: FakeCluster) -> None:
    client = SmartClient([three.metadata.url])
    with pytest.raises(NotFoundError):
        await client.play_video("unknown")
    for video_id, speed in (("../etc", 1.0), ("", 1.0), (VIDEO, -1.0), (VIDEO, float("nan")), (VIDEO, 1e9)):
        with pytest.raises(InvalidRequestError):
            await client.play_video(video_id, speed=speed)


@pytest.mark.parametrize(("status", "error"), [("uploading", UnavailableError), ("failed", NotFoundError)])
async def test_a_video_that_is_not_active_is_refused(three: FakeCluster, status: str, error: type[Exception]) -> None:
    three.metadata.manifests[VIDEO] = replace(three.metadata.manifests[VIDEO], status=status)
    with pytest.raises(error, match=r"being uploaded|failed"):
        await play(three)


@pytest.mark.parametrize(
    "patch",
    [{"size_bytes": 0}, {"size_bytes": 2**21 + 1}, {"checksum": "sha256:12"}, {"sequence_num": 5}, {"sequence_num": 1}],
    ids=str,
)
async def test_a_manifest_with_a_wrong_chunk_is_refused(three: FakeCluster, patch: dict[str, object]) -> None:
    manifest = three.metadata.manifests[VIDEO]
    chunks = (replace(manifest.chunks[0], **patch), *manifest.chunks[1:])
    three.metadata.manifests[VIDEO] = replace(manifest, chunks=chunks)
    with pytest.raises(RemoteError, match="manifest"):
        await play(three)
    assert not any(node.requests for node in three.nodes)


@pytest.mark.parametrize("change", [{"total_chunks": 7}, {"total_chunks": 0, "chunks": ()}, {"chunks": ()}], ids=str)
async def test_a_manifest_that_lacks_chunks_is_refused(three: FakeCluster, change: dict[str, object]) -> None:
    three.metadata.manifests[VIDEO] = replace(three.metadata.manifests[VIDEO], **change)
    with pytest.raises(RemoteError, match="manifest"):
        await play(three)


async def test_an_old_manifest_without_durations_plays_at_an_even_pace(three: FakeCluster) -> None:
    manifest = three.metadata.manifests[VIDEO]
    chunks = tuple(replace(chunk, duration_sec=0.0) for chunk in manifest.chunks)
    three.metadata.manifests[VIDEO] = replace(manifest, duration_sec=1.2, chunks=chunks)
    report = await play(three, speed=1)
    assert report.played_s == pytest.approx(1.2)
    assert report.elapsed_s >= 1.2


@pytest.mark.parametrize("faults", [(), (fakes.crash,), (fakes.hang_mid_body, fakes.lack), (fakes.flip_a_bit,) * 2])
async def test_any_three_of_five_fragments_make_the_video(faults: tuple[Behaviour, ...]) -> None:
    async with cluster(node_count=5, chunk_bytes=200_001) as made:
        made.metadata.manifests[VIDEO] = made.coded(made.metadata.manifests[VIDEO])
        for node, fault in zip(made.nodes, faults, strict=False):
            node.behave = fault
        out = io.BytesIO()
        report = await play(made, output=out)
        assert out.getvalue() == made.content
        assert report.sha256 == made.sha256


async def test_fragments_of_another_chunk_are_never_handed_out() -> None:
    """Every fragment is what the manifest promises, but together they are not the chunk that it promises."""
    async with cluster(node_count=5) as made:
        coded = made.coded(made.metadata.manifests[VIDEO])
        chunks = (replace(coded.chunks[0], fragments=coded.chunks[1].fragments), *coded.chunks[1:])
        made.metadata.manifests[VIDEO] = replace(coded, chunks=chunks)
        out = io.BytesIO()
        with pytest.raises(UnavailableError, match="corrupt"):
            await SmartClient([made.metadata.url], patience_s=0.5).play_video(VIDEO, output=out, speed=0)
        assert out.getvalue() == b""


async def test_a_video_that_is_converted_while_it_plays_goes_on() -> None:
    async with cluster(node_count=5) as made:

        async def converted(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
            for other in made.nodes:
                other.behave = fakes.serve
            made.metadata.manifests[VIDEO] = made.coded(made.metadata.manifests[VIDEO])
            return await fakes.lack(node, request, data)

        for node in made.nodes:
            node.behave = converted
        assert (await play(made)).sha256 == made.sha256


async def test_at_most_four_requests_at_a_time() -> None:
    async def linger(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await fakes.serve(node, request, data)

    async with cluster(chunk_count=20, chunk_bytes=10_000, node_count=1) as made:
        made.nodes[0].behave = linger
        await play(made)
        assert made.nodes[0].most_active == 4


async def test_output_to_a_path(three: FakeCluster, tmp_path: Path) -> None:
    target = tmp_path / "video.mp4"
    target.write_bytes(b"something older and longer" * 100_000)
    await play(three, output=target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == three.sha256


async def test_an_output_that_cannot_be_opened_is_a_clear_error(three: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        await play(three, output=tmp_path / "missing" / "video.mp4")


async def test_an_output_that_fails_ends_the_playback(three: FakeCluster) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        await play(three, output=Full())


async def test_an_output_that_takes_less_than_it_is_given_gets_everything(three: FakeCluster) -> None:
    class Sipping(io.BytesIO):
        def write(self, data: object) -> int:
            return super().write(memoryview(data)[:70_001])  # type: ignore[arg-type]

    out = Sipping()
    await play(three, output=out)
    assert out.getvalue() == three.content


async def test_cancelling_leaves_no_task_and_no_request(three: FakeCluster) -> None:
    for node in three.nodes:
        node.behave = fakes.hang_mid_body
    playing = asyncio.create_task(play(three))
    await until(lambda: sum(node.active for node in three.nodes) >= 3)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    await until(lambda: not any(node.active for node in three.nodes))


async def test_a_cancelled_playback_is_off_the_books_of_a_client_that_stays_open(three: FakeCluster) -> None:
    for node in three.nodes:
        node.behave = fakes.hang_mid_body
    async with SmartClient([three.metadata.url]) as client:
        session = await client.prepare(VIDEO, speed=0)
        playing = asyncio.create_task(session.run())
        await until(lambda: sum(node.active for node in three.nodes) >= 3)
        assert any(record.in_flight for _, record in client.nodes.items())
        playing.cancel()
        await asyncio.wait({playing})
        assert session.over
        assert not any(record.in_flight for _, record in client.nodes.items())


async def test_a_client_that_is_closed_leaves_no_connection(three: FakeCluster) -> None:
    async with new_session() as session:
        async with SmartClient([three.metadata.url], session=session) as client:
            await client.play_video(VIDEO, speed=0)
        assert not session.closed  # a shared session is its owner's
    async with SmartClient([three.metadata.url]) as client:
        await client.play_video(VIDEO, speed=0)
        own = client._services.storage._session if client._services else None
    assert own is not None
    assert own.closed


async def test_one_client_plays_several_videos_at_once(three: FakeCluster) -> None:
    async with SmartClient([three.metadata.url]) as client:
        reports = await asyncio.gather(*(client.play_video(VIDEO, speed=0) for _ in range(5)))
    assert {report.sha256 for report in reports} == {three.sha256}
    assert three.metadata.views == [VIDEO] * 5
    assert all(record.in_flight == 0 for _, record in client.nodes.items())


async def test_the_monitor_pings_every_node_of_the_manifest_and_sees_one_die(three: FakeCluster) -> None:
    async with SmartClient([three.metadata.url], ping_interval_s=0.05) as client:
        await client.prepare(VIDEO)
        await until(lambda: all(node.pings >= 3 for node in three.nodes))
        assert set(client.nodes.known) == {node.url for node in three.nodes}
        assert all(record.latency_ms > 0 for _, record in client.nodes.items())
        dead = three.nodes[0]
        await dead.down()
        await until(lambda: client.nodes.avoided(dead.url, time.monotonic()))
        assert client.nodes[dead.url].success_rate < 1
