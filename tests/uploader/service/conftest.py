"""Fixtures of the uploader service's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.uploader.service.cluster import FakeCluster, running_cluster
from tests.uploader.service.running import Service, running_service, settings_for
from vstack.service import runner


@pytest.fixture(autouse=True)
def quick_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose client has gone away would hold up the end of a test."""
    monkeypatch.setattr(runner, "SHUTDOWN_GRACE_S", 0.2)


@pytest.fixture
async def five_nodes(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with running_cluster(tmp_path, 5) as cluster:
        yield cluster


@pytest.fixture
async def three_nodes(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with running_cluster(tmp_path, 3) as cluster:
        yield cluster


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """An uploader that knows no cluster: enough for everything up to the answer."""
    async with running_service(settings_for(tmp_path)) as started:
        yield started
