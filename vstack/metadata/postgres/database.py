"""The way to Postgres: a bounded pool, typed rows, and one honest answer while the database is away.

Invariants
- Whatever keeps the database from answering (down, restarting, overloaded, failing over, a schema not there yet)
  reaches callers as UnavailableError, within ACQUIRE_TIMEOUT_S plus STATEMENT_TIMEOUT_MS, and nothing else does.
- While the database is known to be away, calls fail at once instead of queueing for it, and those that wait for an
  answer are cut off. Of several servers, all calls go to the one that the last look found to take writes.
- Connections are in autocommit mode: a statement alone is a transaction; `transaction()` groups several.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from vstack.errors import UnavailableError
from vstack.metadata.jobs import end
from vstack.metadata.postgres import statements
from vstack.metadata.postgres.connecting import (
    Connection,
    connect,
    server_of,
    sever,
    severed_after,
    while_connected,
    with_deadlines,
)
from vstack.metadata.postgres.locks import Lock
from vstack.metadata.postgres.migrate import migrate

ACQUIRE_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 20_000
MAX_WAITING: Final = 1000
WATCH_INTERVAL_S: Final = 1.0
LOOK_TIMEOUT_S: Final = 5.0
RETRY_AFTER_S: Final = 2.0

_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a standby, during a failover
)

_SQL = statements.load("session")

log = structlog.get_logger()

Params = Mapping[str, object]
T = TypeVar("T")


class Database:
    """One database, shared by all requests of a process. An async context manager: it is open inside the block.

    Entering takes one attempt to connect; a database that is away is waited for in the background.
    """

    def __init__(self, url: str, *, pool_size: int) -> None:
        self._url = url
        self._server: dict[str, str | int] = {}
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._pool = AsyncConnectionPool(
            with_deadlines(url),
            min_size=min(2, pool_size),
            max_size=pool_size,
            open=False,
            kwargs=lambda: {"autocommit": True, "application_name": "vstack-metadata", **self._server},
            configure=self._configure,
            timeout=ACQUIRE_TIMEOUT_S,
            max_waiting=MAX_WAITING,
            reconnect_timeout=WATCH_INTERVAL_S,
        )
        self._available = False
        self._probe: Connection | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether the database answered when it was last asked, with our schema in place."""
        return self._available

    def pool_figures(self) -> Mapping[str, int]:
        """Psycopg's own counters: pool_size, requests_waiting, requests_num, requests_wait_ms and others."""
        return self._pool.get_stats()

    async def __aenter__(self) -> Self:
        await self._pool.open(wait=False)
        await self._look()
        self._watcher = asyncio.create_task(self._watch(), name="database-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            await end(self._watcher)
        if self._probe is not None:
            await self._probe.close()
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection in autocommit mode."""
        if not self._available:
            raise _unavailable()
        async with self._connection() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction: committed at the end of the block, rolled back if it raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def rows(self, statement: bytes, kind: type[T], params: Params | None = None) -> list[T]:
        """All rows, each as a `kind` made from its columns by name."""
        async with self.connection() as connection:
            return await rows(connection, statement, kind, params)

    async def row(self, statement: bytes, kind: type[T], params: Params | None = None) -> T | None:
        """The first row, None where there is none."""
        async with self.connection() as connection:
            return await row(connection, statement, kind, params)

    async def execute(self, statement: bytes, params: Params | None = None) -> int:
        """Run a statement and return the number of rows that it touched."""
        async with self.connection() as connection:
            return (await connection.execute(statement, params)).rowcount

    @contextlib.asynccontextmanager
    async def exclusively(self, lock: Lock) -> AsyncIterator[bool]:
        """True inside the block for the one instance that holds `lock`, False for all others, without waiting.

        A lost connection ends the block with UnavailableError, because the lock went with it. Another instance may have
        started the same work before that is noticed: it must be repeatable.
        """
        async with self.connection() as connection:
            held = await (await connection.execute(_SQL["try_lock"], {"key": lock})).fetchone()
            if held is None or not held[0]:
                yield False
                return
            try:
                async with while_connected(connection):
                    yield True
            finally:
                if not connection.broken:
                    await connection.execute(_SQL["unlock"], {"key": lock})

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction:
                    await connection.close()  # a primary no more
                    raise
        except _AWAY as error:
            log.warning("database_call_failed", error=_sentence(error))
            raise _unavailable() from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        """Ask the database over a connection of our own, so that a busy pool does not look like an absence.

        Whatever server answers first also has its schema brought up: it may be one that was restored.
        """
        try:
            if self._probe is None:
                self._probe = await connect(self._url)
                await migrate(self._probe)
            with severed_after(self._probe, LOOK_TIMEOUT_S):
                await _ask(self._probe)
        except _AWAY as error:
            await self._set_away(_sentence(error))
        except Exception:
            log.exception("database_unusable")
            await self._set_away("unusable")
        else:
            if not self._available:
                self._server = server_of(self._probe)
                await self._pool.drain()  # throw away what the outage has cut, or left with another server
                log.info("database_available", **self._server)
            self._available = True

    async def _set_away(self, reason: str) -> None:
        if self._available or self._watcher is None:
            log.warning("database_away", reason=reason)
        self._available = False
        self._server = {}
        for connection in tuple(self._open):
            sever(connection)
        if self._probe is not None:
            await self._probe.close()
            self._probe = None

    async def _configure(self, connection: Connection) -> None:
        await connection.execute(_SQL["configure"], {"statement_timeout_ms": str(STATEMENT_TIMEOUT_MS)})
        self._open.add(connection)


async def apply_migrations(url: str) -> list[int]:
    """Bring the schema of the database at `url` up to this release; the numbers of what was missing.

    UnavailableError where the database does not answer.
    """
    try:
        async with await connect(url) as connection:
            return await migrate(connection)
    except _AWAY as error:
        raise UnavailableError(f"the database cannot be reached: {_sentence(error)}", retry_after_s=0) from error


async def rows(connection: Connection, statement: bytes, kind: type[T], params: Params | None = None) -> list[T]:
    """All rows of a statement inside the caller's transaction."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchall()


async def row(connection: Connection, statement: bytes, kind: type[T], params: Params | None = None) -> T | None:
    """The first row of a statement inside the caller's transaction."""
    async with connection.cursor(row_factory=class_row(kind)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchone()


async def hold(connection: Connection, lock: Lock) -> None:
    """Wait for `lock` and keep it until the caller's transaction ends."""
    await connection.execute(_SQL["lock_for_transaction"], {"key": lock})


async def _ask(connection: Connection) -> None:
    read_only = await (await connection.execute(_SQL["read_only"])).fetchone()
    if read_only != (False,):
        raise psycopg.errors.ReadOnlySqlTransaction("the server takes no writes")


def _sentence(error: Exception) -> str:
    """The error in one line: libpq adds hints on lines of their own."""
    return " ".join(str(error).split()) or type(error).__name__


def _unavailable() -> UnavailableError:
    return UnavailableError("the database cannot be reached", retry_after_s=RETRY_AFTER_S)
