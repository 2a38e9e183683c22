"""Finding, stopping and killing processes. They are looked up in /proc, so nothing here can go stale."""

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

from scripts.lab_lib.command import LabError, await_condition

KILL_S = 20


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> str:
    """A file of /proc/PID; empty when the process has gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def with_argument(argument: str) -> list[int]:
    """Processes that have exactly this word on their command line."""
    return [pid for pid in all_pids() if argument in _read(pid, "cmdline").split("\0")]


def children(parents: Iterable[int]) -> list[int]:
    wanted = set(parents)
    return [pid for pid in all_pids() if parent_of(pid) in wanted]


def parent_of(pid: int) -> int | None:
    # The name in parentheses may contain anything; the last one closes it.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else None


def is_stopped(pid: int) -> bool:
    return _read(pid, "stat").rpartition(")")[2].split()[:1] == ["T"]


def namespace(pid: int, kind: str) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return None


def is_init(pid: int) -> bool:
    """Whether it is process 1 of a namespace of its own."""
    for line in _read(pid, "status").splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def members(init: int) -> list[int]:
    """Every process in the PID namespace of `init`, nested namespaces included."""
    home = namespace(init, "pid")
    if home is None:
        return []
    found, seen = [], {init}
    for pid in all_pids():
        if namespace(pid, "pid") == home:
            found.append(pid)
            seen.add(pid)
    grown = True
    while grown:
        nested = [pid for pid in children(seen) if pid not in seen]
        found += nested
        seen.update(nested)
        grown = bool(nested)
    return found


def send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_all(init: int) -> None:
    """SIGSTOP to every process, also to those that were born meanwhile. Raises LabError when some never stop."""

    def stopped() -> bool:
        running = [pid for pid in members(init) if not is_stopped(pid)]
        send(running, signal.SIGSTOP)
        return not running

    await_condition(stopped, f"processes of {init} still run", KILL_S)


def resume_all(init: int) -> None:
    """SIGCONT, children first: whoever waits for a child finds it as it was."""
    send(reversed(members(init)), signal.SIGCONT)


def await_end(pids: Iterable[int], what: str, deadline_s: float) -> None:
    """Return when all have ended. They need not be our children."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], deadline_s)[0]:
                raise LabError(f"Process {pid} did not end within {deadline_s:g} s: {what}.")
        finally:
            os.close(handle)


def kill(pids: Iterable[int]) -> None:
    """SIGKILL, and return when they are gone."""
    victims = list(pids)
    send(victims, signal.SIGKILL)
    await_end(victims, "it was killed", KILL_S)
