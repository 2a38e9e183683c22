"""One real cluster for the tests that leave it as they found it, and a video to put into it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dev_cluster import DevCluster, dev_cluster
from vstack.dev import programs
from vstack.dev.sample import make_sample

VIDEO_S = 45
"""Half as long again as a player buffers ahead."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with dev_cluster(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    asyncio.run(make_sample(path, ffmpeg=programs.media().ffmpeg, seconds=VIDEO_S, mbps=4))
    return path
