"""A real, temporary PostgreSQL server for tests; every test gets a database of its own."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from vstack.dev.programs import postgres_bin

AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000") if os.geteuid() == 0 else ()
START_TIMEOUT_S = 60


class Server:
    """One server below `directory`, reached through a Unix socket there. Not durable: it does not outlive the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._bin = postgres_bin(None)
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        subprocess.run(
            [*AS_USER, self._bin / "initdb", "-D", self._data, "-U", "vstack", "-A", "trust", "-E", "UTF8", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def follow(self, primary: "Server") -> None:
        """In place of `initialise`: become a standby of `primary`, which streams to it."""
        subprocess.run(
            [
                *(*AS_USER, self._bin / "pg_basebackup", "-D", self._data, "-R", "-U", "vstack"),
                *("-h", primary.directory, "--checkpoint=fast", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "32MB",
            "max_connections": "100",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*AS_USER, self._bin / "postgres", "-D", self._data, *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Immediately, as in a crash."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop every process of the server where it stands: its sockets stay, and nobody answers."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """As a host that loses its power: no process of the server gets to say a word."""
        assert self._process is not None
        self.freeze()
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def promote(self) -> None:
        self.execute("SELECT pg_promote()")

    def _pids(self) -> list[int]:
        """The server's first process, and all it has started."""
        assert self._process is not None
        first = self._process.pid
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def url(self, database: str) -> str:
        return f"postgresql://vstack@/{database}?host={self.directory}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, dropped at the end."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def _data(self) -> Path:
        return self.directory / "data"


@contextlib.contextmanager
def running_server(directory: Path) -> Iterator[Server]:
    server = Server(directory)
    server.initialise()
    server.start()
    try:
        yield server
    finally:
        server.stop()
