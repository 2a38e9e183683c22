"""One service in one process: how it starts, how it refuses to, how it ends."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from vstack.errors import SettingsError
from vstack.service import runner

DEADLINE_S = 20.0

PROGRAM = """
import asyncio, sys
from aiohttp import web
from vstack import errors
from vstack.service import logs, runner

async def cleanup(app):
    print("opened", flush=True)
    if MODE == "slow":
        await asyncio.sleep(3600)
    if MODE == "ends":
        asyncio.get_running_loop().call_later(0.05, runner.end, app, errors.DiskError("the disk has gone"))
    yield
    print("closed", flush=True)

async def make_app():
    if MODE == "refuses":
        raise errors.SettingsError("no such disk")
    app = web.Application()
    app.cleanup_ctx.append(cleanup)
    if MODE == "drains":
        app[runner.DRAIN] = drain
    return app

async def drain():
    _, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    writer.close()
    print("drained", flush=True)

MODE = sys.argv[1]
logs.configure("test")
sys.exit(runner.run(make_app, "127.0.0.1", int(sys.argv[2])))
"""


@contextmanager
def started(tmp_path: Path, mode: str, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(program), mode, str(port)], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["normal", "slow"])
def test_a_signal_ends_it_orderly_also_while_it_starts(tmp_path: Path, mode: str, number: int) -> None:
    with started(tmp_path, mode) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        while mode == "normal" and "listening" not in (tmp_path / "stderr").read_text():
            assert process.poll() is None
        os.kill(process.pid, number)
        assert process.wait(DEADLINE_S) == 0
        assert process.stdout.read() == ("closed\n" if mode == "normal" else "")
        assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_it_drains_while_it_still_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    with started(tmp_path, "drains", port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        while "listening" not in (tmp_path / "stderr").read_text():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        assert process.stdout.read() == "drained\nclosed\n"


@pytest.mark.parametrize(("mode", "sentence"), [("refuses", "no such disk"), ("ends", "the disk has gone")])
def test_an_error_is_one_line_and_status_1(tmp_path: Path, mode: str, sentence: str) -> None:
    with started(tmp_path, mode) as process:
        assert process.wait(DEADLINE_S) == 1
    assert (tmp_path / "stderr").read_text().splitlines()[-1] == f"vstack: {sentence}"
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_taken_port_is_one_line_and_closes_what_was_opened(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with started(tmp_path, "normal", port) as process:
            assert process.wait(DEADLINE_S) == 1
            assert process.stdout is not None
            assert process.stdout.read() == "opened\nclosed\n"
    lines = (tmp_path / "stderr").read_text().splitlines()
    assert lines == [f"vstack: cannot listen on 127.0.0.1:{port}: Address already in use"]


async def test_a_failing_resource_releases_those_before_it() -> None:
    events: list[str] = []

    async def first(_app: web.Application) -> AsyncIterator[None]:
        events.append("open")
        yield
        events.append("close")

    async def second(_app: web.Application) -> AsyncIterator[None]:
        if events:
            raise SettingsError("not this one")
        yield

    app = web.Application()
    app.cleanup_ctx.extend([first, second])
    with pytest.raises(SettingsError):
        async with runner.serving(app, "127.0.0.1", 0):
            pytest.fail("it must not serve")
    assert events == ["open", "close"]
