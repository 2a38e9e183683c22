"""The main job on a real cluster, through the command line: store, list, play, lose a node, delete, rebuild."""

import asyncio
import json
import os
import signal
import tomllib
from pathlib import Path

import psycopg
import pytest

from tests.support.dev_cluster import DevCluster, until
from vstack.client import PlaybackReport, SmartClient
from vstack.dev import programs, proof
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient
from vstack.wire.metadata import Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

SPEED = 6.0


def stored_videos(cluster: DevCluster) -> dict[str, dict[str, object]]:
    return {video["video_id"]: video for video in json.loads(cluster.run("videos", "--json").stdout)}


async def manifest_of(cluster: DevCluster, video_id: str) -> Manifest:
    async with new_session() as session:
        return await MetadataClient(session, cluster.endpoints.metadata).manifest(video_id)


async def copies(cluster: DevCluster, chunk_id: str) -> int:
    """How many nodes hold a chunk."""
    async with new_session() as session:
        heads = [StorageClient(session).head_chunk(node, chunk_id) for node in cluster.endpoints.storage]
        return sum(head is not None for head in await asyncio.gather(*heads))


def test_a_video_goes_in_comes_out_and_goes_away(cluster: DevCluster, video: Path, tmp_path: Path) -> None:
    video_id = cluster.upload(video, "Round trip")
    assert stored_videos(cluster)[video_id]["title"] == "Round trip"
    assert stored_videos(cluster)[video_id]["status"] == "active"
    assert video_id in cluster.run("videos").stdout

    played = tmp_path / "played.mp4"
    cluster.play(video_id, played)
    manifest = asyncio.run(manifest_of(cluster, video_id))
    assert all(len(chunk.replicas) == 3 for chunk in manifest.chunks)
    asyncio.run(proof.check_chunks(manifest.chunks, played))
    streams = asyncio.run(proof.check_streams(programs.media(), video, played))
    assert (streams.copied, streams.converted, streams.decoded) == (2, 0, False)

    report = json.loads(cluster.run("play", video_id, "--speed", "0", "--json").stdout)
    assert report["chunks"] == manifest.total_chunks
    assert report["size_bytes"] == played.stat().st_size

    assert asyncio.run(copies(cluster, f"{video_id}-chunk-000")) == 3
    cluster.run("delete", video_id)
    assert video_id not in stored_videos(cluster)
    assert "vstack: " in cluster.run("play", video_id, status=1).stderr
    assert "vstack: " in cluster.run("delete", video_id, status=1).stderr


def test_what_is_no_video_is_refused_in_one_line_and_leaves_nothing(cluster: DevCluster, tmp_path: Path) -> None:
    before = stored_videos(cluster)
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    said = cluster.run("upload", str(tmp_path / "text.mp4"), "--title", "No", status=1).stderr
    assert said.startswith("vstack: ")
    assert said.count("\n") == 1
    assert stored_videos(cluster) == before


async def play_while_a_serving_node_dies(cluster: DevCluster, video_id: str, output: Path) -> PlaybackReport:
    async with SmartClient(cluster.endpoints.metadata) as client:
        session = await client.prepare(video_id, output=output, speed=SPEED)
        playing = asyncio.create_task(session.run())
        async with asyncio.timeout(30):
            while session.figures().buffer.playhead_s < 5:  # noqa: ASYNC110 - a clock, not an event
                await asyncio.sleep(0.01)
        downloads = session.figures().downloads
        node = max(downloads, key=lambda url: downloads[url])
        os.kill(cluster.pid(cluster.name_of(node)), signal.SIGKILL)
        async with asyncio.timeout(60):
            return await playing


def test_a_node_that_dies_on_the_way_is_not_noticed(cluster: DevCluster, video: Path, tmp_path: Path) -> None:
    video_id = cluster.upload(video, "Unharmed")
    played = tmp_path / "played.mp4"
    try:
        report = asyncio.run(play_while_a_serving_node_dies(cluster, video_id, played))
        assert (report.stalls, report.chunks) == (0, len(asyncio.run(manifest_of(cluster, video_id)).chunks))
        asyncio.run(proof.check_streams(programs.media(), video, played))
        # With a node down there is still a quorum: what is stored now is whole too.
        degraded = cluster.upload(video, "Stored without one node")
        assert cluster.play(degraded, tmp_path / "degraded.mp4") == played.read_bytes()
    finally:
        cluster.revive()


def test_every_process_can_be_killed_and_comes_back_with_its_data(
    cluster: DevCluster, video: Path, tmp_path: Path
) -> None:
    video_id = cluster.upload(video, "Restarted")
    before = cluster.play(video_id, tmp_path / "before.mp4")
    for name in ("postgres", "metadata", "uploader", "client", *(f"storage-{number}" for number in range(1, 6))):
        cluster.kill(name)
    cluster.revive()
    assert cluster.play(video_id, tmp_path / "after.mp4") == before
    assert cluster.play(cluster.upload(video, "After"), tmp_path / "new.mp4") == before


def test_a_lost_database_is_made_again_from_the_nodes(cluster: DevCluster, video: Path, tmp_path: Path) -> None:
    video_id = cluster.upload(video, "Found again")
    deleted = cluster.upload(video, "Deleted")
    cluster.run("delete", deleted)
    # Retirement at the acceptors comes before the deletion of data; until then the database alone knows of it.
    until(lambda: asyncio.run(copies(cluster, f"{deleted}-chunk-000")) == 0, "the end of the deleted data")
    before = cluster.play(video_id, tmp_path / "before.mp4")

    config = cluster.directory / "config" / "metadata.toml"
    url = tomllib.loads(config.read_text())["database_url"]
    cluster.kill("metadata")
    with psycopg.connect(url.replace("/vstack?", "/postgres?"), autocommit=True) as connection:
        connection.execute('DROP DATABASE "vstack" WITH (FORCE)')
        connection.execute('CREATE DATABASE "vstack"')
    cluster.revive()
    assert video_id not in stored_videos(cluster)

    rebuild = ["admin", "rebuild-metadata", "--config", str(config), "--json"]
    report = json.loads(cluster.vstack(*rebuild).stdout)
    assert report["nodes"] == 5
    assert stored_videos(cluster)[video_id]["title"] == "Found again"
    assert deleted not in stored_videos(cluster)
    assert cluster.play(video_id, tmp_path / "after.mp4") == before
    assert json.loads(cluster.vstack(*rebuild).stdout)["conflicts"] == []
