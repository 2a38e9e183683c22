"""What systemd hears of a service, on a real datagram socket."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from vstack.service import systemd

DEADLINE_S = 20.0
TICK_S = 0.02
WATCHDOG = {"WATCHDOG_USEC": str(int(2 * TICK_S * 1e6))}


class Ear:
    """systemd's end of the socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self._socket.settimeout(DEADLINE_S)

    def message(self) -> list[str]:
        """The next one."""
        return self._socket.recv(4096).decode().split("\n")

    def until(self, line: str) -> list[list[str]]:
        """Messages up to the first with `line`."""
        heard = [self.message()]
        while line not in heard[-1]:
            heard.append(self.message())
        return heard

    def waiting(self) -> int:
        """Messages that have arrived; they are taken."""
        count = 0
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                count += 1
        except BlockingIOError:
            return count
        finally:
            self._socket.settimeout(DEADLINE_S)
        return count

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify") if request.param == "path" else f"@vstack-test-{uuid.uuid4()}")
    yield ear
    ear.close()


async def test_it_tells_what_happens_in_order(ear: Ear) -> None:
    with systemd.managed({"NOTIFY_SOCKET": ear.name}) as manager:
        assert ear.message() == ["STATUS=starting"]
        assert ear.message() == ["EXTEND_TIMEOUT_USEC=30000000"]
        manager.ready("listening on here:1")
        assert ear.message() == ["READY=1", "STATUS=listening on here:1"]
        manager.draining()
        assert ear.message() == ["STOPPING=1", "STATUS=finishing what has begun", "EXTEND_TIMEOUT_USEC=30000000"]
        manager.closing()
        assert ear.message() == ["STOPPING=1", "STATUS=closing", "EXTEND_TIMEOUT_USEC=30000000"]
    assert ear.waiting() == 0


async def test_more_time_is_asked_for_only_while_it_starts_or_drains(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "EXTEND_EVERY_S", TICK_S)

    async def next_tick() -> list[str]:
        return await asyncio.to_thread(ear.message)

    with systemd.managed({"NOTIFY_SOCKET": ear.name} | WATCHDOG) as manager:
        ear.message()
        for _ in range(3):
            assert await next_tick() == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=30000000"]
        manager.ready("")
        ear.until("READY=1")
        for _ in range(3):
            assert await next_tick() == ["WATCHDOG=1"]
        manager.draining()
        ear.until("STOPPING=1")
        assert await next_tick() == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=30000000"]
        manager.closing()
        ear.until("STATUS=closing")
        assert await next_tick() == ["WATCHDOG=1"]


async def test_a_start_that_never_ends_gets_no_more_time(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "EXTEND_EVERY_S", TICK_S)
    monkeypatch.setattr(systemd, "MAX_EXTENDED_S", 5 * TICK_S)
    with systemd.managed({"NOTIFY_SOCKET": ear.name} | WATCHDOG):
        while await asyncio.to_thread(ear.message) != ["WATCHDOG=1"]:
            pass


async def test_a_blocked_loop_goes_hungry_and_a_free_one_is_fed_again(ear: Ear) -> None:
    with systemd.managed({"NOTIFY_SOCKET": ear.name} | WATCHDOG):
        await asyncio.to_thread(ear.until, "WATCHDOG=1")
        ear.waiting()
        time.sleep(10 * TICK_S)  # noqa: ASYNC251 - the loop is blocked on purpose
        assert ear.waiting() == 0
        await asyncio.to_thread(ear.until, "WATCHDOG=1")


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "40000", "WATCHDOG_PID": "1"}], ids=str
)
async def test_no_watchdog_for_us(ear: Ear, watchdog: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "EXTEND_EVERY_S", TICK_S)
    with systemd.managed({"NOTIFY_SOCKET": ear.name} | watchdog):
        heard = [await asyncio.to_thread(ear.message) for _ in range(4)]
    assert not any("WATCHDOG=1" in lines for lines in heard)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}], ids=str)
async def test_without_systemd_nothing_is_sent(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with systemd.managed(environment | WATCHDOG) as manager:
        manager.ready("")
        manager.closing()
    assert "systemd_not_told" not in caplog.text


async def test_a_socket_that_has_gone_stops_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(systemd, "log", log)
    with systemd.managed({"NOTIFY_SOCKET": str(tmp_path / "gone")}) as manager:
        manager.ready("")
    assert log.calls[0].args == ("systemd_not_told",)


PROGRAM = """
import asyncio, sys, threading
from aiohttp import web
from vstack.service import logs, runner

async def make_app():
    app = web.Application()
    async def drain():
        await asyncio.sleep(0)
    app[runner.DRAIN] = drain
    if sys.argv[1] == "blocked":
        asyncio.get_running_loop().call_later(0, where_it_blocks)
    return app

def where_it_blocks():
    print("blocked", flush=True)
    threading.Event().wait()

logs.configure("test")
sys.exit(runner.run(make_app, "127.0.0.1", 0))
"""


@contextmanager
def running(tmp_path: Path, mode: str, ear: Ear) -> Iterator[subprocess.Popen[bytes]]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    environment = os.environ | {"NOTIFY_SOCKET": ear.name} | WATCHDOG
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(program), mode], env=environment, stdout=subprocess.PIPE, stderr=stderr
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_service_says_when_it_listens_and_when_it_stops(tmp_path: Path, ear: Ear) -> None:
    with running(tmp_path, "free", ear) as process:
        heard = ear.until("WATCHDOG=1")
        assert heard[0] == ["STATUS=starting"]
        ready = ear.until("READY=1")[-1]
        assert ready == ["READY=1", "STATUS=listening on 127.0.0.1:0"]
        ear.until("WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        ear.until("STATUS=finishing what has begun")
        ear.until("STATUS=closing")
        assert process.wait(DEADLINE_S) == 0


def test_the_watchdogs_signal_prints_where_the_loop_is_blocked(tmp_path: Path, ear: Ear) -> None:
    with running(tmp_path, "blocked", ear) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"blocked\n"
        process.send_signal(signal.SIGABRT)
        assert process.wait(DEADLINE_S) == -signal.SIGABRT
        assert "where_it_blocks" in (tmp_path / "stderr").read_text()
