"""Children are bounded while they live and gone afterwards. Small shell programs stand in for ffmpeg."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from vstack.errors import InvalidMediaError, SettingsError
from vstack.uploader.media import sandbox

pytestmark = pytest.mark.cluster

LIMITED = 'until grep -q "Max file size  *0 " /proc/self/limits; do :; done; '


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


async def output(script: str, *, timeout_s: float = 20) -> tuple[bytes, int]:
    async with sandbox.run(shell(script), timeout_s=timeout_s) as child:
        data = b""
        while part := await child.read(1000):
            data += part
        return data, await child.exit_status()


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


async def test_output_and_exit_status() -> None:
    assert await output("echo hello; exit 3") == (b"hello\n", 3)


async def test_the_environment_is_empty_but_for_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSTACK_SECRET", "hunter2")
    data, _ = await output("env")
    names = {line.partition("=")[0] for line in data.decode().splitlines()}
    assert names <= {"PATH", "LC_ALL", "AV_LOG_FORCE_NOCOLOR", "MALLOC_ARENA_MAX", "PWD", "_", "SHLVL", "OLDPWD"}


async def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        data, _ = await output("ls -l /proc/self/fd")
    assert str(tmp_path).encode() not in data


async def test_limits_hold() -> None:
    data, _ = await output(LIMITED + "ulimit -H -t; ulimit -H -v; ulimit -H -n; ulimit -H -c", timeout_s=10)
    assert data.split() == [b"41", b"4194304", b"64", b"0"]


async def test_no_file_can_be_written(tmp_path: Path) -> None:
    _, status = await output(LIMITED + f"echo stolen > {tmp_path}/file")
    assert status != 0
    assert (tmp_path / "file").read_bytes() == b""


async def test_the_whole_group_dies_with_the_block() -> None:
    async with sandbox.run(shell("sleep 300 & echo $!; wait"), timeout_s=60) as child:
        grandchild = int(await child.read(100))
        assert is_running(grandchild)
    await gone(grandchild)
    await gone(child.process.pid)


async def test_the_whole_group_dies_with_its_task() -> None:
    started: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    async def job() -> None:
        async with sandbox.run(shell("sleep 300 & echo $!; wait"), timeout_s=60) as child:
            started.set_result((child.process.pid, int(await child.read(100))))
            await child.read(100)

    task = asyncio.create_task(job())
    pids = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in pids:
        await gone(pid)


async def test_a_child_that_keeps_us_waiting_is_given_up() -> None:
    with pytest.raises(InvalidMediaError, match="took too long"):
        await output("sleep 300", timeout_s=0.1)


async def test_a_slow_reader_is_not_charged_to_the_child() -> None:
    async with sandbox.run(shell("echo a; cat /dev/zero"), timeout_s=5) as child:
        before = child.timeout_s
        assert await child.read(2) == b"a\n"
        spent_reading = before - child.timeout_s
        await asyncio.sleep(0.3)
        assert child.timeout_s == before - spent_reading


async def test_a_child_that_closes_its_output_but_stays_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_EXIT_GRACE_S", 0.05)
    assert await output("exec >&-; sleep 300") == (b"", -signal.SIGKILL)


async def test_a_talkative_child_neither_blocks_nor_fills_memory() -> None:
    async with sandbox.run(shell("yes complaint | head -c 5000000 >&2; echo done"), timeout_s=60) as child:
        assert await child.read(100) == b"done\n"
        assert await child.exit_status() == 0
    assert len(child.errors) == 4096


async def test_unread_output_leaves_nothing_open() -> None:
    async with sandbox.run(shell("cat /dev/zero"), timeout_s=60) as child:
        await child.read(1)
    assert child.output.at_eof()


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="cannot run /nonexistent/ffmpeg: No such file"):
        async with sandbox.run(["/nonexistent/ffmpeg"], timeout_s=1):
            pass


@pytest.mark.parametrize(
    ("complaint", "shown"),
    [
        ("[mov,mp4 @ 0x5600deadbeef] moov atom not found\\nfile:/srv/in/x.mp4: Invalid data", "moov atom not found"),
        ("file:/srv/in/x.mp4: Invalid argument", "Invalid argument"),
        ("/srv/in/x.mp4: corrupt packet", "corrupt packet"),
        ("cannot open '/etc/shadow' or https://10.0.0.1/x", "cannot open '...' or ..."),
        ("rate 30000/1001 is \\033[31modd\\007", "rate 30000/1001 is [31modd"),
        ("\\n \\nlater", "later"),
    ],
)
async def test_complaints_are_fit_for_strangers(complaint: str, shown: str) -> None:
    async with sandbox.run(shell(f'printf "{complaint}" >&2'), timeout_s=20) as child:
        await child.exit_status()
    assert str(sandbox.failure("no", child, Path("/srv/in/x.mp4"))) == f"no: {shown}"


async def test_complaints_are_short_and_may_be_missing() -> None:
    async with sandbox.run(shell("head -c 3000 /dev/zero | tr '\\0' x >&2"), timeout_s=20) as child:
        await child.exit_status()
    assert len(str(sandbox.failure("no", child, Path("/x")))) == 204
    child.errors.clear()
    assert str(sandbox.failure("no", child, Path("/x"))) == "no"


def test_the_same_under_uvloop() -> None:
    async def all_of_it() -> None:
        assert await output("echo hello; exit 3") == (b"hello\n", 3)
        async with sandbox.run(shell("sleep 300 & echo $!; cat /dev/zero"), timeout_s=60) as child:
            grandchild = int((await child.read(100)).split(b"\n")[0])
        await gone(grandchild)
        with suppress(SettingsError):
            await output("true")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())
