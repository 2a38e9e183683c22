"""The database is lost; the storage nodes have everything."""

import hashlib

import pytest

from tests.metadata.cluster import Cluster, Video, eventually
from tests.metadata.postgres import Server
from vstack.core.paxos.messages import Instance
from vstack.core.placement import config_for
from vstack.errors import InvalidRequestError, RemoteError, UnavailableError
from vstack.metadata.rebuild import rebuild as rebuild_module
from vstack.metadata.rebuild import staging
from vstack.metadata.rebuild.rebuild import RebuildReport, rebuild
from vstack.metadata.state import METADATA
from vstack.settings import MetadataSettings

pytestmark = pytest.mark.cluster


async def run(cluster: Cluster, url: str, *, nodes: slice = slice(None)) -> RebuildReport:
    settings = MetadataSettings(database_url=url, cluster_key_file=str(cluster.key_file))
    return await rebuild(settings, [node.url for node in cluster.nodes[nodes]])


async def contents(cluster: Cluster, video: Video, *, api: int) -> bytes:
    """All bytes of a video, read as its manifest says."""
    manifest = await cluster.apis[api].ok("GET", f"/manifest/{video.video_id}")
    read = bytearray()
    for chunk in manifest["chunks"]:
        assert chunk["replicas"], chunk
        data = await cluster.storage.get_chunk(chunk["replicas"][0], chunk["chunk_id"])
        assert chunk["checksum"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        read += data
    return bytes(read)


async def test_everything_acknowledged_is_back(cluster: Cluster, postgres: Server) -> None:
    videos = [await cluster.video(f"Film {number} é") for number in range(3)]
    data = [await video.complete(cluster.nodes, chunks=4) for video in videos]
    receipts = await videos[0].propose(cluster.nodes, b"unused", 9)
    assert receipts
    before = [await cluster.api.ok("GET", f"/manifest/{video.video_id}") for video in videos]
    with postgres.database() as url:
        report = await run(cluster, url)
        assert (report.nodes, report.videos, report.chunks) == (3, 3, 13)
        assert (report.live_pieces, report.conflict_count, report.undecided) == (13 * 3, 0, 0)
        await cluster.add_metadata(database_url=url)
        for video, pieces, old in zip(videos[1:], data[1:], before[1:], strict=True):
            assert await contents(cluster, video, api=1) == b"".join(pieces)
            new = await cluster.apis[1].ok("GET", f"/manifest/{video.video_id}")
            for key in ("title", "status", "created_at", "duration_sec", "total_chunks", "segments"):
                assert new[key] == old[key], key
        assert (await cluster.apis[1].ok("GET", f"/video/{videos[0].video_id}"))["status"] == "failed"
        assert await run(cluster, url) == report, "a second run changes nothing"


async def test_numbers_of_generations_are_not_reused(cluster: Cluster, postgres: Server) -> None:
    await cluster.add_nodes(2)
    video = await cluster.video()
    await video.complete(cluster.nodes[:3])
    with postgres.database() as url:
        await run(cluster, url)
        api = await cluster.add_metadata(database_url=url)
        created = await api.ok("POST", "/video", {"title": "after"})
        assert created["generation"]["number"] > video.facts.generation


async def test_a_deleted_video_stays_dead_though_a_node_slept(cluster: Cluster, postgres: Server) -> None:
    await cluster.add_nodes(2)
    video, other = await cluster.video("gone"), await cluster.video("kept")
    await video.complete(cluster.nodes[:3])
    await other.complete(cluster.nodes[2:5])
    sleeper = cluster.nodes[0]
    await sleeper.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id = 'node-0'")
    assert (await cluster.api.call("DELETE", f"/video/{video.video_id}")).status == 204

    async def cleared() -> bool:
        left = [name for node in cluster.nodes[1:] for name in await node.objects()]
        return not any(name.startswith(video.video_id) for name in left)

    await eventually(cleared)
    await sleeper.start()
    assert any(name.startswith(video.video_id) for name in await sleeper.objects())
    with postgres.database() as url:
        report = await run(cluster, url)
        assert (report.videos, report.retired) == (1, 3)
        assert report.orphans == 3


async def test_a_value_that_only_a_round_can_prove_is_finished(cluster: Cluster, postgres: Server) -> None:
    video = await cluster.video()
    receipts = await video.propose(cluster.nodes, b"all", 0, last=True)
    assert len(receipts) == 3
    lost = cluster.nodes[2]
    with postgres.database() as url:
        report = await run(cluster, url, nodes=slice(0, 2))
        assert (report.finished, report.chunks, report.undecided) == (1, 1, 0)
        assert report.live_pieces == 2
        api = await cluster.add_metadata(database_url=url)
        manifest = await api.ok("GET", f"/manifest/{video.video_id}")
        assert manifest["status"] == "active"
        assert lost.url not in manifest["chunks"][0]["replicas"]
        again = await run(cluster, url)
        assert (again.live_pieces, again.finished) == (3, 0), "the third copy is found when its node is read"


async def test_an_aborted_chunk_and_a_chunk_without_data_are_not_made_up(cluster: Cluster, postgres: Server) -> None:
    video = await cluster.video()
    metadata = cluster.api.app[METADATA]
    urls = {node.node_id: node.url for node in cluster.nodes}
    aborted = Instance(video.chunk_id(0), 0, config_for(video.chunk_id(0), video.generation))
    await metadata.consensus.abort(aborted, urls, video_id=video.video_id, sequence_num=0)
    await video.propose(cluster.nodes[:1], b"one vote", 1)
    await cluster.nodes[0].engine.delete(video.chunk_id(1))
    with postgres.database() as url:
        report = await run(cluster, url)
        assert (report.aborted, report.undecided, report.chunks, report.videos) == (1, 1, 0, 0)


async def test_a_row_that_contradicts_the_nodes_is_reported_and_kept(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.complete(cluster.nodes)
    forged = video.decree(cluster.nodes, b"other").encode()
    await cluster.sql("UPDATE chunks SET decree = %s WHERE chunk_id = %s", forged, video.chunk_id(0))
    report = await run(cluster, cluster.database_url)
    assert report.conflicts == (video.chunk_id(0),)
    assert await cluster.sql("SELECT decree FROM chunks WHERE chunk_id = %s", video.chunk_id(0)) == [(forged,)]


async def test_a_stale_backup_is_completed(cluster: Cluster) -> None:
    video = await cluster.video()
    data = await video.complete(cluster.nodes)
    await cluster.sql("DELETE FROM chunks WHERE sequence_num > 0")
    await cluster.sql("UPDATE videos SET status = 'uploading', total_chunks = NULL")
    report = await run(cluster, cluster.database_url)
    assert report.conflict_count == 0
    assert await contents(cluster, video, api=0) == b"".join(data)
    assert (await cluster.api.ok("GET", f"/video/{video.video_id}"))["status"] == "active"


async def test_an_upload_that_lost_chunks_is_nobodys_to_give_up(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.store(cluster.nodes, b"zero", 0)
    await video.store(cluster.nodes, b"two", 2, last=True)
    await cluster.sql("DELETE FROM chunks WHERE sequence_num > 0")
    await run(cluster, cluster.database_url)
    assert await cluster.sql("SELECT status, restored_at IS NOT NULL FROM videos") == [("uploading", True)]
    await video.put(cluster.nodes, b"one", 1)
    assert (await video.commit(cluster.nodes, b"one", 1)).status == 409


async def test_pages_and_batches_may_end_anywhere(
    cluster: Cluster, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = await cluster.video()
    await video.complete(cluster.nodes, chunks=7)
    for fetch, batch in ((1, 1), (2, 3), (5, 2), (21, 7)):
        monkeypatch.setattr(staging, "FETCH_ROWS", fetch)
        monkeypatch.setattr(rebuild_module, "BATCH_CHUNKS", batch)
        with postgres.database() as url:
            assert (await run(cluster, url)).chunks == 7


async def test_bad_input(cluster: Cluster) -> None:
    with pytest.raises(InvalidRequestError):
        await run(cluster, cluster.database_url, nodes=slice(0, 0))
    settings = MetadataSettings(database_url=cluster.database_url, cluster_key_file=str(cluster.key_file))
    with pytest.raises(RemoteError):
        await rebuild(settings, [cluster.nodes[0].url, "http://127.0.0.1:9"])
    with pytest.raises(UnavailableError):
        await rebuild(
            MetadataSettings(database_url="postgresql:///x?host=/nowhere", cluster_key_file=str(cluster.key_file)),
            [cluster.nodes[0].url],
        )
