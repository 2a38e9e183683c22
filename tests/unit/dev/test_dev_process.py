"""A supervised child: its output is kept within bounds, its end is certain, also when the supervisor is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vstack.dev.process import BoundedLog, Process, describe_exit
from vstack.errors import SettingsError

DEADLINE_S = 20.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return tmp_path


def python(name: str, directory: Path, program: str) -> Process:
    return Process(name, [sys.executable, "-u", "-c", program], directory)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie still has its number; nobody of ours waits for the orphans of these tests.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_log_keeps_to_its_limit(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "x.log", limit_bytes=1000)
    for number in range(100):
        log.write(b"line %03d of this log\n" % number)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1"]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert (tmp_path / "x.log").read_text().endswith("line 099 of this log\n")
    assert log.last_line() == "line 099 of this log"


async def test_a_log_that_cannot_be_written_does_not_stop_the_program(directory: Path) -> None:
    (directory / "logs" / "full.log").symlink_to("/dev/full")
    process = python("full", directory, "print('x' * 1_000_000); print('done')")
    await process.start()
    assert await process.wait() == 0
    assert process.last_line == "done"
    await process.stop()


async def test_both_outputs_go_to_the_log(directory: Path) -> None:
    process = python("both", directory, "import sys; print('out'); sys.stderr.write('err\\n'); sys.exit(3)")
    await process.start()
    assert (directory / "run" / "both.pid").read_text() == f"{process.pid}\n"
    assert await process.wait() == 3
    assert process.ended
    assert process.last_line == "err"
    assert (directory / "logs" / "both.log").read_text() == "out\nerr\n"
    await process.stop()
    assert not (directory / "run" / "both.pid").exists()


async def test_it_can_be_killed_and_started_again(directory: Path) -> None:
    process = python("again", directory, "import time; print('up'); time.sleep(600)")
    for _ in range(2):
        await process.start()
        await until(lambda: process.last_line == "up")
        process.signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        assert not process.running
        assert not (directory / "run" / "again.pid").exists(), "the number may soon belong to another program"
    await process.stop()
    assert (directory / "logs" / "again.log").read_text() == "up\nup\n"


async def test_one_that_ignores_the_stop_signal_is_killed_with_its_group(directory: Path) -> None:
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid); time.sleep(600)"
    )
    process = python("deaf", directory, program)
    await process.start()
    await until(lambda: process.last_line != "")
    child = int(process.last_line)
    await process.stop(timeout_s=0.05)
    assert process.ended
    await until(lambda: gone(child))


async def test_a_program_that_does_not_exist(directory: Path) -> None:
    process = Process("none", [str(directory / "no-such-program")], directory)
    await process.start()
    assert await process.wait() != 0
    assert "no-such-program" in process.last_line
    missing = Process("none", ["x"], directory, prefix=[str(directory / "no-such-prefix")])
    with pytest.raises(SettingsError, match="cannot start none"):
        await missing.start()
    await process.stop()


def test_a_child_does_not_outlive_a_killed_supervisor(directory: Path) -> None:
    program = f"""
import asyncio, sys
from collections.abc import Callable
from pathlib import Path
from vstack.dev.process import Process

async def main():
    process = Process("child", [sys.executable, "-c", "import time; time.sleep(600)"], Path({str(directory)!r}))
    await process.start()
    print(process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        # setpriv asks for the signal before it becomes the program.
        deadline_s = time.monotonic() + DEADLINE_S
        while "setpriv" in Path(f"/proc/{child}/cmdline").read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        assert not gone(child)
        supervisor.kill()
        supervisor.wait()
    deadline_s = time.monotonic() + DEADLINE_S
    while not gone(child):
        assert time.monotonic() < deadline_s, "the child is still there"
        time.sleep(0.005)


def test_an_exit_in_words() -> None:
    assert describe_exit(0) == "ended with status 0"
    assert describe_exit(-9) == "was ended by SIGKILL"
