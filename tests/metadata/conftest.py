"""Postgres and clusters for the tests of the metadata service."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.metadata.cluster import Cluster
from tests.metadata.postgres import Server, running_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
async def empty_cluster(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> AsyncIterator[Cluster]:
    """One metadata instance, no storage node."""
    async with Cluster(tmp_path_factory.mktemp("cluster"), database_url) as cluster:
        await cluster.add_metadata()
        yield cluster


@pytest.fixture
async def cluster(empty_cluster: Cluster) -> Cluster:
    """One metadata instance and three storage nodes."""
    await empty_cluster.add_nodes(3)
    return empty_cluster
