"""A private PostgreSQL server inside the cluster's directory, run from whatever binaries the machine has.

Invariants: fsync is on; it listens on a Unix socket inside the directory (on loopback only where the path is too long
for a socket), and asks for a generated password either way; nothing outside the directory is written or re-owned.
"""

import asyncio
import os
import shutil
import signal
import socket
import urllib.parse
from pathlib import Path
from typing import Final

import psycopg

from vstack.dev import layout, programs
from vstack.dev.ports import HOST
from vstack.dev.process import Process
from vstack.errors import SettingsError

START_TIMEOUT_S: Final = 60.0
PREDECESSOR_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5
POLL_S: Final = 0.05
MAX_SOCKET_PATH_BYTES: Final = 107
SOCKET_PORT: Final = 5432
USER: Final = "vstack"
DATABASE: Final = "vstack"

_AS_USER: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""PostgreSQL refuses to run as root. In a user namespace root's own files belong to an ordinary user."""


class Postgres:
    """One server. `directory` is the cluster's; data lie in its folder `postgres`."""

    def __init__(self, directory: Path) -> None:
        self._data = directory / "postgres"
        self._run = directory / "run"
        self._password_file = directory / "postgres.password"
        self._password = layout.ensure_secret(self._password_file)
        self._prefix = _AS_USER if os.geteuid() == 0 else ()
        version = self._data / "PG_VERSION"
        self._bin = programs.postgres_bin(version.read_text().strip() if version.exists() else None)
        self._socket = _fits_a_socket(self._run)
        self._port = SOCKET_PORT if self._socket else _free_port()
        self.process = Process(
            "postgres",
            [str(self._bin / "postgres"), *self._options()],
            directory,
            prefix=self._prefix,
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGQUIT,
        )

    @property
    def url(self) -> str:
        """The connection URL of the cluster's database."""
        return self._url(DATABASE)

    async def start(self) -> None:
        """Create the data directory if there is none, start, wait until it answers, make the database."""
        if not self._data.exists():
            await self._initialise()
        pid_file = self._data / "postmaster.pid"
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PREDECESSOR_TIMEOUT_S
        while True:
            follows_another = pid_file.exists()
            await self.process.start()
            if await self._answers():
                break
            # A server whose supervisor was killed may need a moment to go.
            if not follows_another or loop.time() > deadline_s:
                raise SettingsError(f"PostgreSQL did not start: {self.process.last_line}")
            await asyncio.sleep(POLL_S)
        await self._make_database()

    async def _initialise(self) -> None:
        fresh = self._data.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        command = [
            *self._prefix,
            str(self._bin / "initdb"),
            f"--pgdata={fresh}",
            f"--username={USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            lines = output.decode("utf-8", "replace").strip().splitlines() or ["no output"]
            raise SettingsError(f"initdb failed: {lines[-1]}")
        fresh.rename(self._data)

    async def _answers(self) -> bool:
        """True when it takes connections, False when it has ended."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_TIMEOUT_S
        while self.process.running:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url("postgres"), connect_timeout=CONNECT_TIMEOUT_S
                )
            except psycopg.OperationalError as error:
                if loop.time() > deadline_s:
                    raise SettingsError(f"PostgreSQL does not answer: {one_line(error)}") from error
                await asyncio.sleep(POLL_S)
            else:
                await connection.close()
                return True
        await self.process.wait()
        return False

    async def _make_database(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
            row = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if await row.fetchone() is None:
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "" if self._socket else HOST,
            "port": str(self._port),
            "unix_socket_directories": str(self._run) if self._socket else "",
            "unix_socket_permissions": "0700",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "fsync": "on",
            "logging_collector": "off",
        }
        return ["-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())]

    def _url(self, database: str) -> str:
        place = f"host={urllib.parse.quote(str(self._run), safe='')}" if self._socket else f"host={HOST}"
        return f"postgresql://{USER}:{self._password}@/{database}?{place}&port={self._port}"


async def check_reachable(url: str) -> None:
    """SettingsError where the database at `url` cannot be connected to."""
    try:
        connection = await psycopg.AsyncConnection.connect(url, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.Error as error:
        raise SettingsError(f"cannot connect to the given database: {one_line(error)}") from error
    await connection.close()


def one_line(error: Exception) -> str:
    """The first line of a message of libpq."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fits_a_socket(directory: Path) -> bool:
    path = os.fsencode(directory / f".s.PGSQL.{SOCKET_PORT}")
    return len(path) <= MAX_SOCKET_PATH_BYTES and b"," not in path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
