"""Programs are bounded while they live and gone afterwards, whoever runs them. Shell scripts stand in for ffmpeg."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from tests.support import media_jobs
from vstack.errors import DiskError, InvalidMediaError, SettingsError, UnavailableError
from vstack.uploader.sandbox import running
from vstack.uploader.sandbox.running import Child, Tool

pytestmark = pytest.mark.cluster

Start = Callable[..., AbstractAsyncContextManager[Child]]


class Sandbox:
    """Runs shell scripts where ffmpeg would run."""

    def __init__(self, directory: Path, media_socket: str, script: Path) -> None:
        self.source = directory / "upload"
        self.source.write_text("the upload")
        self._socket = media_socket
        self._script = script

    def run(self, script: str, *args: str, timeout_s: float = 20) -> AbstractAsyncContextManager[Child]:
        self._script.write_text(f"#!/bin/sh\n{script}\n")
        self._script.chmod(0o755)
        return running.run(
            Tool("ffmpeg", str(self._script), self._socket), args, source=self.source, timeout_s=timeout_s
        )

    async def output(self, script: str, *args: str, timeout_s: float = 20) -> tuple[bytes, int]:
        async with self.run(script, *args, timeout_s=timeout_s) as child:
            data = b""
            while part := await child.read(1000):
                data += part
            return data, await child.exit_status()


@pytest.fixture(params=["child", "unit"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sandbox]:
    script = tmp_path / "program"
    with ExitStack() as stack:
        unit = stack.enter_context(media_jobs.listening(str(script), str(script))) if request.param == "unit" else ""
        yield Sandbox(tmp_path, unit, script)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):  # noqa: ASYNC110 - nothing tells of the end of a process that is not our child
            await asyncio.sleep(0.01)


def open_files() -> set[str]:
    """What this process has open, but for what a loop watches processes with."""
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            links.add(str(link.readlink()))
    return {link for link in links if not link.startswith("anon_inode:")}


@asynccontextmanager
async def nothing_stays_open() -> AsyncIterator[None]:
    # What a loop opens for its first child process stays with it.
    await (await asyncio.create_subprocess_exec("true")).wait()
    before = open_files()
    yield
    async with asyncio.timeout(10):
        while open_files() - before:  # noqa: ASYNC110 - transports close in a later turn of the loop
            await asyncio.sleep(0.01)


async def test_output_and_exit_status(sandbox: Sandbox) -> None:
    assert await sandbox.output("echo hello; exit 3") == (b"hello\n", 3)


async def test_the_guards_come_before_the_input_and_the_options_after(sandbox: Sandbox) -> None:
    data, _ = await sandbox.output('echo "$@"', "-f", "mp4", "-")
    guard, _, rest = data.decode().partition(" -i ")
    assert guard.startswith("-nostdin -v error -protocol_whitelist file,pipe -format_whitelist ")
    assert guard.endswith("-threads 4")
    assert rest == "file:/proc/self/fd/0 -f mp4 -\n"


async def test_the_input_can_be_opened_anew(sandbox: Sandbox) -> None:
    assert await sandbox.output("head -c 4; cat /proc/self/fd/0") == (b"the the upload", 0)


async def test_the_environment_is_empty_but_for_what_is_needed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSTACK_SECRET", "hunter2")
    data, _ = await sandbox.output("env")
    names = {line.partition("=")[0] for line in data.decode().splitlines()}
    assert names <= {"PATH", "LC_ALL", "AV_LOG_FORCE_NOCOLOR", "MALLOC_ARENA_MAX", "PWD", "_", "SHLVL", "OLDPWD"}


async def test_no_descriptor_but_the_three_is_inherited(sandbox: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        data, _ = await sandbox.output("readlink /proc/$$/fd/0 /proc/$$/fd/10; ls /proc/$$/fd")
    assert data.decode().split() == [str(sandbox.source), str(sandbox._script), "0", "1", "10", "2"], "10: the shell's"


async def test_limits_hold(sandbox: Sandbox) -> None:
    data, _ = await sandbox.output("ulimit -H -t; ulimit -H -v; ulimit -H -n; ulimit -H -c; ulimit -H -f", timeout_s=10)
    assert data.split() == [b"41", b"4194304", b"64", b"0", b"0"]


async def test_no_file_can_be_written(sandbox: Sandbox, tmp_path: Path) -> None:
    _, status = await sandbox.output(f"echo stolen > {tmp_path}/file")
    assert status != 0
    assert (tmp_path / "file").read_bytes() == b""


async def test_signals_are_as_a_program_expects_them(sandbox: Sandbox) -> None:
    data, _ = await sandbox.output("grep SigIgn /proc/$$/status")
    assert int(data.split()[1], 16) & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0


async def test_the_whole_group_dies_with_the_block(sandbox: Sandbox) -> None:
    async with sandbox.run("sleep 300 & echo $!; wait", timeout_s=60) as child:
        grandchild = int(await child.read(100))
        assert is_running(grandchild)
        assert is_running(child.pid)
    assert not is_running(child.pid)
    await gone(grandchild)


async def test_the_group_dies_also_when_the_program_has_ended(sandbox: Sandbox) -> None:
    async with sandbox.run("sleep 300 >/dev/null 2>&1 & echo $!", timeout_s=60) as child:
        grandchild = int(await child.read(100))
        assert await child.exit_status() == 0
    await gone(grandchild)


async def test_the_whole_group_dies_with_its_task(sandbox: Sandbox) -> None:
    started: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    async def job() -> None:
        async with sandbox.run("sleep 300 & echo $!; wait", timeout_s=60) as child:
            started.set_result((child.pid, int(await child.read(100))))
            await child.read(100)

    task = asyncio.create_task(job())
    pids = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in pids:
        await gone(pid)


UPLOADER = """
import asyncio, sys
from pathlib import Path
from vstack.uploader.sandbox.running import Tool, run

async def main():
    async with run(Tool("ffmpeg", sys.argv[1], sys.argv[2]), [], source=Path(sys.argv[3]), timeout_s=60) as child:
        print(child.pid, int(await child.read(100)), flush=True)
        await child.read(100)

asyncio.run(main())
"""


async def test_the_whole_group_dies_with_the_uploader_itself(sandbox: Sandbox) -> None:
    """Killed, it cannot clean up anything: it is the connection that ends the job."""
    sandbox.run("sleep 300 & echo $!; wait")
    uploader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UPLOADER, str(sandbox._script), sandbox._socket, str(sandbox.source)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert uploader.stdout is not None
    pids = [int(text) for text in (await uploader.stdout.readline()).split()]
    assert all(is_running(pid) for pid in pids)
    uploader.kill()
    await uploader.wait()
    for pid in pids:
        await gone(pid)


async def test_a_program_that_keeps_us_waiting_is_given_up(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidMediaError, match="took too long"):
        await sandbox.output("sleep 300", timeout_s=0.1)


async def test_a_slow_reader_is_not_charged_to_the_program(sandbox: Sandbox) -> None:
    async with sandbox.run("echo a; cat /dev/zero", timeout_s=5) as child:
        before = child.timeout_s
        assert await child.read(2) == b"a\n"
        spent_reading = before - child.timeout_s
        await asyncio.sleep(0.3)
        assert child.timeout_s == before - spent_reading


async def test_a_program_that_closes_its_output_but_stays_is_killed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sandbox.run("exec >&-; sleep 300") as child:
        assert await child.read(1) == b""
        # What is left then is awaited as long as ever: only the first wait is short.
        waits = iter([0.05])
        status = running.Link.status
        monkeypatch.setattr(running.Link, "status", lambda link, patience_s: status(link, next(waits, patience_s)))
        assert await child.exit_status() == -signal.SIGKILL
        assert not is_running(child.pid)


async def test_a_program_killed_from_outside_is_reported(sandbox: Sandbox) -> None:
    async with sandbox.run("kill -KILL $$") as child:
        assert await child.read(1) == b""
        assert await child.exit_status() == -signal.SIGKILL
    assert isinstance(running.verdict("no", child, -signal.SIGKILL), UnavailableError)
    assert isinstance(running.verdict("no", child, 1), InvalidMediaError)


async def test_a_talkative_program_neither_blocks_nor_fills_memory(sandbox: Sandbox) -> None:
    async with sandbox.run("yes complaint | head -c 5000000 >&2; echo done", timeout_s=60) as child:
        assert await child.read(100) == b"done\n"
        assert await child.exit_status() == 0
    assert len(child.errors) == 4096


async def test_unread_output_leaves_nothing_open(sandbox: Sandbox) -> None:
    async with nothing_stays_open(), sandbox.run("cat /dev/zero", timeout_s=60) as child:
        await child.read(1)


async def test_a_program_that_is_not_there(tmp_path: Path, sandbox: Sandbox) -> None:
    missing = Tool("ffmpeg", str(sandbox._script), sandbox._socket)
    async with nothing_stays_open():
        with pytest.raises(SettingsError, match=f"cannot run {sandbox._script}: No such file"):
            async with running.run(missing, [], source=sandbox.source, timeout_s=1):
                pass


async def test_an_upload_that_is_not_there(sandbox: Sandbox) -> None:
    sandbox.source.unlink()
    with pytest.raises(DiskError, match="No such file"):
        await sandbox.output("true")


async def test_options_that_no_program_can_get(sandbox: Sandbox) -> None:
    with pytest.raises(SettingsError, match="wrong type"):
        await sandbox.output("true", "a\0b")


@pytest.mark.parametrize(
    ("complaint", "shown"),
    [
        (
            "[mov,mp4 @ 0x5600deadbeef] moov atom not found\\nfile:/proc/self/fd/0: Invalid data",
            "moov atom not found",
        ),
        ("file:/proc/self/fd/0: Invalid argument", "Invalid argument"),
        ("/srv/in/x.mp4: corrupt packet", "...: corrupt packet"),
        ("cannot open '/etc/shadow' or https://10.0.0.1/x", "cannot open '...' or ..."),
        ("rate 30000/1001 is \\033[31modd\\007", "rate 30000/1001 is [31modd"),
        ("\\n \\nlater", "later"),
    ],
)
async def test_complaints_are_fit_for_strangers(sandbox: Sandbox, complaint: str, shown: str) -> None:
    async with sandbox.run(f'printf "{complaint}" >&2') as child:
        await child.exit_status()
    assert str(running.failure("no", child)) == f"no: {shown}"


async def test_complaints_are_short_and_may_be_missing(sandbox: Sandbox) -> None:
    async with sandbox.run("head -c 3000 /dev/zero | tr '\\0' x >&2") as child:
        await child.exit_status()
    assert len(str(running.failure("no", child))) == 204
    child.errors.clear()
    assert str(running.failure("no", child)) == "no"


def test_the_same_under_uvloop(sandbox: Sandbox) -> None:
    async def all_of_it() -> None:
        async with nothing_stays_open():
            assert await sandbox.output("echo hello; exit 3") == (b"hello\n", 3)
            async with sandbox.run("sleep 300 & echo $!; cat /dev/zero", timeout_s=60) as child:
                grandchild = int((await child.read(100)).split(b"\n")[0])
            await gone(grandchild)
            with pytest.raises(InvalidMediaError):
                await sandbox.output("sleep 300", timeout_s=0.1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())


async def test_a_unit_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "program"
    with media_jobs.listening(str(script), str(script)) as path:
        hidden = Path(path).with_name("hidden")
        Path(path).rename(hidden)
        sandbox = Sandbox(tmp_path, path, script)
        asking = asyncio.create_task(sandbox.output("echo hello"))
        await asyncio.sleep(0)
        hidden.rename(path)
        assert await asking == (b"hello\n", 0)


async def test_a_unit_that_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_S", 0.1)
    sandbox = Sandbox(tmp_path, str(tmp_path / "media.sock"), tmp_path / "program")
    with pytest.raises(UnavailableError, match="no media job is to be had"):
        await sandbox.output("true")
