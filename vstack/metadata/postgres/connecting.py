"""Connections to Postgres that tell soon when the other end is gone.

Owns how long a server may be silent before it counts as lost, whichever way it went: stopped, switched off (nothing
answers, not even a refusal), cut off, frozen (its kernel answers, it does not), or demoted to a standby.

Invariant: no wait here is left to the kernel's defaults, which are minutes to hours.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vstack.errors import SettingsError

Connection = psycopg.AsyncConnection

CONNECT_TIMEOUT_S: Final = 2
"""For each host of the URL, one after the other; the least that libpq knows."""

DEFAULTS: Final[Mapping[str, int]] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A host that is gone while it owes us an answer is noticed after 5 + 3 * 1 s, and after 8 s while we owe it one.
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}


def with_deadlines(url: str) -> str:
    """`url` as a libpq connection string with our deadlines, where it sets no others. SettingsError if it is none."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise SettingsError(f"database_url is not right: {' '.join(str(error).split())}") from error
    return make_conninfo("", **{**DEFAULTS, **given})


async def connect(url: str) -> Connection:
    """A connection in autocommit mode, to the first host of `url` that fits its target_session_attrs."""
    return await Connection.connect(with_deadlines(url), autocommit=True)


def server_of(connection: Connection) -> dict[str, str | int]:
    """The parameters that lead to the very server of a connection, of all that its URL names."""
    server: dict[str, str | int] = {"host": connection.info.host, "port": connection.info.port}
    if "hostaddr" in connection.info.get_parameters():
        server["hostaddr"] = connection.info.hostaddr
    return server


def sever(connection: Connection) -> None:
    """Cut a connection at once. Whoever waits for its server gets the error of a lost connection.

    Cancelling the wait would not do: psycopg then asks the server to cancel the statement and waits for it.
    """
    with contextlib.suppress(OSError, psycopg.OperationalError), _socket_of(connection) as end:
        end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def severed_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Sever the connection if the block is not done by then."""
    timer = asyncio.get_running_loop().call_later(seconds, sever, connection)
    try:
        yield
    finally:
        timer.cancel()


@contextlib.asynccontextmanager
async def while_connected(connection: Connection) -> AsyncIterator[None]:
    """End the block with OperationalError when `connection`, which must be idle in it, is lost."""
    loop = asyncio.get_running_loop()
    descriptor = connection.fileno()

    def on_readable() -> None:
        # libpq closes the descriptor of a lost connection: it must not be watched any more by then.
        loop.remove_reader(descriptor)
        try:
            connection.pgconn.consume_input()  # also a notice or a changed parameter, which are no loss
        except psycopg.OperationalError:
            scope.reschedule(loop.time())
        else:
            loop.add_reader(descriptor, on_readable)

    try:
        async with asyncio.timeout(None) as scope:
            loop.add_reader(descriptor, on_readable)
            try:
                yield
            finally:
                if not connection.broken:
                    loop.remove_reader(descriptor)
    except TimeoutError as error:
        if scope.expired():
            raise psycopg.OperationalError("the connection was lost") from error
        raise


def _socket_of(connection: Connection) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.fileno()))
