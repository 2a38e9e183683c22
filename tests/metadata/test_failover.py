"""A primary dies, hangs, or is one no more, and a standby takes over: writes go on, and no answered one is lost."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.metadata.cluster import Api, Cluster, eventually
from tests.metadata.postgres import Server, running_server
from vstack.errors import SettingsError, UnavailableError
from vstack.metadata.postgres.connecting import DEFAULTS, Connection, connect, while_connected, with_deadlines
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock

WRITERS = 4


@dataclass
class Pair:
    """A primary, and a standby that it waits for with every commit."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Both, in this order, as a site's metadata service is given them."""
        hosts = f"{self.primary.directory},{self.standby.directory}"
        return f"postgresql://vstack@/postgres?host={hosts}&target_session_attrs=read-write"


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_server(tmp_path_factory.mktemp("pg")) as primary:
        standby = Server(tmp_path_factory.mktemp("pg"))
        standby.follow(primary)
        standby.start()
        try:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            yield Pair(primary, standby)
        finally:
            standby.stop()


@dataclass
class Writers:
    """Clients that create videos one after the other; what was answered."""

    api: Api
    created: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)

    async def write(self) -> None:
        while True:
            answer = await self.api.call("POST", "/video", {"title": "t"})
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.created.add(answer.body["video_id"])
            else:
                assert int(answer.headers["Retry-After"]) >= 1
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.write()) for _ in range(WRITERS)]
            await self.more()
            yield
            for task in tasks:
                task.cancel()

    async def more(self) -> None:
        """Wait until each writer can have written something new."""
        enough = len(self.created) + 2 * WRITERS

        async def reached() -> bool:
            return len(self.created) >= enough

        await eventually(reached)


def kill(pair: Pair) -> None:
    pair.primary.kill()
    pair.standby.promote()


def freeze(pair: Pair) -> None:
    pair.primary.freeze()
    pair.standby.promote()


def demote(pair: Pair) -> None:
    """The old primary stays up, takes no writes, and ends no connection."""
    pair.primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    pair.primary.execute("SELECT pg_reload_conf()")
    pair.standby.promote()


@pytest.mark.cluster
@pytest.mark.parametrize("fail_over", [kill, freeze, demote])
async def test_writes_resume_on_the_promoted_standby(
    pair: Pair,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    fail_over: Callable[[Pair], None],
) -> None:
    monkeypatch.setattr("vstack.metadata.postgres.database.LOOK_TIMEOUT_S", 1.0)
    async with Cluster(tmp_path_factory.mktemp("cluster"), pair.url) as cluster:
        api = await cluster.add_metadata()
        writers = Writers(api)
        async with writers.writing():
            await asyncio.to_thread(fail_over, pair)
            await writers.more()
        assert set(writers.statuses) == {200, 503}
        kept = {video["video_id"] for video in await api.ok("GET", "/videos?limit=1000&offset=0")}
        assert len(kept) < 1000, "the page holds all"
        assert writers.created <= kept


@pytest.mark.cluster
async def test_a_call_that_waits_for_a_frozen_server_is_answered(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vstack.metadata.postgres.database.LOOK_TIMEOUT_S", 0.5)
    with running_server(tmp_path_factory.mktemp("pg")) as server:
        async with Database(server.url("postgres"), pool_size=1) as db:
            async with db.connection() as connection:
                server.freeze()
                with pytest.raises(psycopg.OperationalError):
                    await connection.execute(b"SELECT 1")
            assert db.available is False
            server.thaw()

            async def back() -> bool:
                return db.available

            await eventually(back)
            assert await db.execute(b"SELECT 1") == 1


@pytest.mark.cluster
async def test_work_under_a_lock_ends_with_its_connection(database_url: str) -> None:
    async with Database(database_url, pool_size=2) as db:

        async def work() -> None:
            async with db.exclusively(Lock.PROBE) as ours:
                assert ours
                await db.execute(
                    b"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                    b" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
                await asyncio.Event().wait()

        with pytest.raises(UnavailableError):
            await work()
        async with db.exclusively(Lock.PROBE) as ours:
            assert ours


@pytest.mark.cluster
async def test_news_on_an_idle_connection_are_no_loss(database_url: str) -> None:
    async with await connect(database_url) as idle, await connect(database_url) as other:
        await idle.execute(b"LISTEN news")
        async with while_connected(idle):
            await other.execute(b"NOTIFY news")
            await eventually(lambda: heard(idle))


async def heard(connection: Connection) -> bool:
    """Whether libpq has read a notification, without reading any more itself."""
    return connection.pgconn.notifies() is not None


@pytest.mark.cluster
async def test_a_database_that_was_made_anew_gets_its_schema(database_url: str) -> None:
    async with Database(database_url, pool_size=1) as db:
        await db.execute(b"DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                b" WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        async def there() -> bool:
            try:
                return await db.execute(b"SELECT 1 FROM pg_tables WHERE tablename = 'videos'") == 1
            except UnavailableError:
                return False

        await eventually(there)


def test_the_url_has_the_last_word_on_deadlines() -> None:
    assert conninfo_to_dict(with_deadlines("postgresql://h/d?connect_timeout=7&host=a,b")) == {
        **{name: str(value) for name, value in DEFAULTS.items()},
        "connect_timeout": "7",
        "host": "a,b",
        "dbname": "d",
    }
    with pytest.raises(SettingsError):
        with_deadlines("postgresql://h/d?no_such_setting=1")
