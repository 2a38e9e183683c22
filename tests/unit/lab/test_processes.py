"""Processes are found and ended by what /proc says of them."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from scripts.lab_lib import processes
from scripts.lab_lib.command import LabError, await_condition, missing_packages, run

WAIT_S = 20


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its input to end, with a word of its own on its command line."""
    word = f"--{uuid.uuid4()}"
    with subprocess.Popen([sys.executable, "-c", "input()", word], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_is_found_by_a_whole_word(child: subprocess.Popen[bytes]) -> None:
    word = str(child.args[-1])  # type: ignore[index]
    await_condition(lambda: processes.with_argument(word) == [child.pid], "the child has its command line", WAIT_S)
    assert processes.with_argument(word[:-1]) == []
    assert child.pid in processes.children([os.getpid()])
    assert processes.parent_of(child.pid) == os.getpid()
    assert not processes.is_init(child.pid)


def test_a_stopped_process_is_seen_as_such(child: subprocess.Popen[bytes]) -> None:
    assert not processes.is_stopped(child.pid)
    processes.send([child.pid], signal.SIGSTOP)
    await_condition(lambda: processes.is_stopped(child.pid), "it stops", WAIT_S)
    processes.send([child.pid], signal.SIGCONT)
    await_condition(lambda: not processes.is_stopped(child.pid), "it goes on", WAIT_S)


def test_a_killed_process_has_ended(child: subprocess.Popen[bytes]) -> None:
    processes.kill([child.pid])
    assert child.wait() == -signal.SIGKILL
    processes.kill([child.pid])
    assert processes.parent_of(child.pid) is None


def test_what_does_not_end_in_time_is_told(child: subprocess.Popen[bytes]) -> None:
    with pytest.raises(LabError, match="did not end"):
        processes.await_end([child.pid], "nothing was done", 0)


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(LabError, match=r"failed \(3\): no luck"):
        run(sys.executable, "-c", "import sys; sys.stderr.write('no luck'); sys.exit(3)")


def test_a_condition_that_never_holds_is_told() -> None:
    with pytest.raises(LabError, match="in vain: pigs fly"):
        await_condition(lambda: False, "pigs fly", 0)


def test_missing_programs_are_told_as_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "systemd-container" in missing_packages()
