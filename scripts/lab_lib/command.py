"""Running programs, and the one error that is told to the person at the command line as one sentence."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_S = 0.05

# Program: the Debian or Ubuntu package that has it.
PROGRAMS = {
    "apt-get": "apt",
    "debootstrap": "debootstrap",
    "dpkg-scanpackages": "dpkg-dev",
    "ip": "iproute2",
    "losetup": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemctl": "systemd",
    "systemd-nspawn": "systemd-container",
}


# Every host's systemd, udev and journal watch files as root, and the machine counts them together: with its usual 128,
# udev fails in the fifteenth host.
INOTIFY_INSTANCES = 8192
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


class LabError(Exception):
    """What went wrong and what to do, in a sentence."""


def run(*command: str | Path, timeout_s: float = 60, env: dict[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed. Raises LabError with its last words."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env=None if env is None else os.environ | env,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(words)}` did not end within {timeout_s:g} s.") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"`{' '.join(words)}` failed ({done.returncode}): {said}")
    return done.stdout


def await_condition(condition: Callable[[], bool], what: str, deadline_s: float) -> None:
    """Return as soon as the condition holds. Raises LabError when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"Waited {deadline_s:g} s in vain: {what}.")
        time.sleep(POLL_S)


def check_machine() -> None:
    """Raises LabError, naming the packages to install, when this machine cannot run a lab."""
    if os.geteuid() != 0:
        raise LabError("The lab makes namespaces, mounts and loop devices: run it as root.")
    if missing := missing_packages():
        raise LabError(f"Programs are missing. Install them with: apt-get install {' '.join(missing)}")
    if not Path("/dev/loop-control").exists():
        raise LabError("The kernel has no loop devices (/dev/loop-control): load the module loop.")


def raise_limits() -> None:
    """The one setting of the machine that the lab changes; only upwards, and until the machine restarts."""
    if int(INOTIFY_LIMIT.read_text()) < INOTIFY_INSTANCES:
        INOTIFY_LIMIT.write_text(str(INOTIFY_INSTANCES))


def missing_packages(programs: Sequence[str] = tuple(PROGRAMS)) -> list[str]:
    return sorted({PROGRAMS[program] for program in programs if shutil.which(program) is None})
