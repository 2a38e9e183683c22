"""The database away, back, and brought up to date by several instances at once."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from tests.metadata.cluster import Cluster, eventually
from tests.metadata.postgres import Server, running_server
from vstack.errors import UnavailableError
from vstack.metadata.postgres import statements
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock
from vstack.metadata.postgres.migrate import migrate

pytestmark = pytest.mark.cluster


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that a test may stop and start."""
    with running_server(tmp_path_factory.mktemp("pg")) as server:
        yield server


async def test_the_service_outlives_its_database(own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    own_server.stop()
    async with Cluster(tmp_path_factory.mktemp("cluster"), own_server.url("postgres")) as cluster:
        api = await cluster.add_metadata()

        async def healthy() -> bool:
            return (await api.call("GET", "/health")).status == 200

        async def unhealthy() -> bool:
            return not await healthy()

        for outage in range(2):
            await eventually(unhealthy)
            answer = await api.call("GET", "/health")
            assert answer.body["status"] == answer.body["database_status"] == "unhealthy"
            assert answer.body["service"] == "metadata-service"
            for method, path, body in (
                ("GET", "/videos", None),
                ("GET", "/manifest/none", None),
                ("POST", "/video", {"title": "t"}),
                ("GET", "/nodes/all", None),
                ("POST", "/video/none/view", None),
            ):
                answer = await api.call(method, path, body)
                assert answer.status == 503, path
                assert int(answer.headers["Retry-After"]) >= 1
                assert isinstance(answer.body["detail"], str)
            assert (await api.call("GET", "/")).status == 200
            assert "vstack_metadata_database_up 0.0" in (await api.call("GET", "/metrics")).body
            own_server.start()
            await eventually(healthy)
            await api.ok("POST", "/video", {"title": f"after outage {outage}"})
            assert len(await api.ok("GET", "/videos")) == outage + 1
            if outage == 0:
                own_server.stop()
        own_server.stop()


async def test_calls_in_flight_when_the_database_dies_are_503(
    own_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with Cluster(tmp_path_factory.mktemp("cluster"), own_server.url("postgres")) as cluster:
        api = await cluster.add_metadata()

        async def ask() -> set[int]:
            return {(await api.call("POST", "/video", {"title": "t"})).status for _ in range(100)}

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        await asyncio.sleep(0)
        own_server.stop()
        statuses = set().union(*await asyncio.gather(*asking))
        assert statuses <= {200, 503}
        assert 503 in statuses


async def test_instances_that_start_together_migrate_once(database_url: str) -> None:
    async def start() -> list[int]:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            return await migrate(connection)

    done = await asyncio.gather(*(start() for _ in range(6)))
    versions = [version for version, _, _ in statements.migrations()]
    assert sorted(done) == [*([[]] * 5), versions]


async def test_a_failed_migration_leaves_nothing_and_is_tried_again(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        bad = [(1, "good", b"CREATE TABLE one (x int)"), (2, "bad", b"CREATE TABLE two (x int); SELECT 1/0")]
        with pytest.raises(psycopg.DataError):
            await migrate(connection, bad)
        assert await tables(connection) == {"schema_migrations", "one"}
        assert await migrate(connection, [bad[0], (2, "mended", b"CREATE TABLE two (x int)")]) == [2]
        assert await tables(connection) == {"schema_migrations", "one", "two"}
        ahead = [(3, "newer", b"CREATE TABLE three (x int)")]
        assert await migrate(connection, ahead) == [3]
        assert await migrate(connection, [bad[0]]) == [], "an older release works on a newer schema"


async def tables(connection: psycopg.AsyncConnection) -> set[str]:
    found = await connection.execute(b"SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row[0] for row in await found.fetchall()}


async def test_exclusively(database_url: str) -> None:
    async with Database(database_url, pool_size=2) as one, Database(database_url, pool_size=2) as other:
        async with (
            one.exclusively(Lock.PROBE) as ours,
            other.exclusively(Lock.PROBE) as theirs,
            other.exclusively(Lock.REAPER) as free,
        ):
            assert (ours, theirs, free) == (True, False, True)
        async with other.exclusively(Lock.PROBE) as theirs:
            assert theirs is True


async def test_a_busy_pool_is_unavailable_and_recovers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vstack.metadata.postgres.database.ACQUIRE_TIMEOUT_S", 0.2)
    async with Database(database_url, pool_size=1) as db:
        async with db.connection():
            with pytest.raises(UnavailableError):
                await db.execute(b"SELECT 1")
            assert db.available is True, "busy is not away"
        assert await db.execute(b"SELECT 1") == 1


async def test_rows_are_found_by_index(database_url: str) -> None:
    """The queries that grow with the store never scan a whole table of chunks or replicas."""
    async with Database(database_url, pool_size=1) as db, db.connection() as connection:
        await connection.execute(b"SET enable_seqscan = off")
        chunks, reaper = statements.load("chunks"), statements.load("reaper")
        for statement, params in (
            (chunks["manifest"], {"video_id": "v"}),
            (chunks["claims"], {"chunk_id": "c", "video_id": "v", "sequence_num": 1}),
            (chunks["placements"], {"chunk_id": "c"}),
            (reaper["pieces_on_node"], {"video_id": "v", "node_key": 1, "after": 0, "limit": 1}),
            (reaper["dying"], {"after": "", "limit": 1}),
        ):
            plan = await (await connection.execute(b"EXPLAIN " + statement, params)).fetchall()
            text = "\n".join(row[0] for row in plan)
            assert "Seq Scan on chunks" not in text, text
            assert "Seq Scan on replicas" not in text, text
            assert "Seq Scan on videos" not in text, text
