"""The smart client against a real cluster: a frozen node is left as quickly as a dead one."""

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.dev_cluster import DevCluster
from vstack.client import SmartClient

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

SPEED = 4.0


async def test_a_node_that_freezes_on_the_way_costs_no_stall(cluster: DevCluster, video: Path) -> None:
    video_id = await asyncio.to_thread(cluster.upload, video, "frozen")
    async with SmartClient(cluster.endpoints.metadata) as client:
        reference = await client.play_video(video_id, speed=0)
        session = await client.prepare(video_id, speed=SPEED)
        playing = asyncio.create_task(session.run())
        async with asyncio.timeout(30):
            while session.figures().startup_s is None:  # noqa: ASYNC110 - polls another task's figures
                await asyncio.sleep(0.01)
        busiest = max(reference.downloads, key=lambda node: reference.downloads[node])
        pid = cluster.pid(cluster.name_of(busiest))
        os.kill(pid, signal.SIGSTOP)
        try:
            report = await asyncio.wait_for(playing, 120)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert report.sha256 == reference.sha256
    assert report.stalls == 0
    await asyncio.to_thread(cluster.run, "delete", video_id)


async def test_a_node_that_is_frozen_from_the_start_is_played_around(
    cluster: DevCluster, video: Path, tmp_path: Path
) -> None:
    video_id = await asyncio.to_thread(cluster.upload, video, "frozen from the start")
    target = tmp_path / "out.mp4"
    async with SmartClient(cluster.endpoints.metadata) as client:
        reference = await client.play_video(video_id, speed=0)
    pid = cluster.pid("storage-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60), SmartClient(cluster.endpoints.metadata) as client:
            report = await client.play_video(video_id, output=target, speed=0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert report.sha256 == reference.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert cluster.endpoints.storage[0] not in report.downloads
    await asyncio.to_thread(cluster.run, "delete", video_id)
