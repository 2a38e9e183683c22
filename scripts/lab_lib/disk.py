"""A host's disks: sparse files behind loop devices. They belong to the lab, so they outlive the host's power.

A power cut loses what a file system had not flushed to its device. What it had flushed is in the backing file, whose
cache the machine keeps: the disk behaves like one with a protected write cache.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from scripts.lab_lib.command import await_condition, run

# FS_IOC_SHUTDOWN of ext4 and xfs, and its flag for: do not even write the journal.
FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
RELEASE_S = 30


def attached(below: Path) -> dict[Path, str]:
    """Backing file to device (/dev/loop7), for all files below a directory."""
    found = {}
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile
            file = Path(entry.read_text().strip().removesuffix(" (deleted)"))
            if below in file.parents:
                found[file] = f"/dev/{entry.parent.parent.name}"
    return found


def attach(file: Path, size_mb: int) -> str:
    """The loop device of a file; both are made when they are not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        with file.open("wb") as new:
            new.truncate(size_mb << 20)
    device = attached(file.parent).get(file)
    # Direct I/O, or a disk's data would be cached twice.
    return device or run("losetup", "--find", "--show", "--direct-io=on", file).strip()


def detach_all(below: Path) -> None:
    for device in attached(below).values():
        run("losetup", "--detach", device)
    await_condition(lambda: not attached(below), f"loop devices of {below} are still in use", RELEASE_S)


def shut_down_file_systems(devices: Iterable[str], pids: Iterable[int]) -> None:
    """Every file system on these devices stops writing at once, without its journal.

    `pids` are the processes that may see them: mounts of a service may be its own.
    """
    numbers = {_number(device) for device in devices}
    for pid in pids:
        for number, mount_point in _mounts(pid):
            if number in numbers and _shut_down(Path(f"/proc/{pid}/root") / mount_point.lstrip("/")):
                numbers.discard(number)
        if not numbers:
            return


def await_release(devices: Iterable[str]) -> None:
    """Return when no file system uses the devices: those of a killed host go away a little after its last process."""
    all_of_them = list(devices)
    await_condition(lambda: all(map(_is_free, all_of_them)), f"{all_of_them} are still mounted", RELEASE_S)


def _is_free(device: str) -> bool:
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def _number(device: str) -> str:
    number = Path(device).stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def _mounts(pid: int) -> list[tuple[str, str]]:
    """(MAJOR:MINOR, mount point) of all that a process has mounted."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [(fields[2], _unescape(fields[4])) for fields in map(str.split, lines)]


def _unescape(path: str) -> str:
    return path.encode().decode("unicode_escape").encode("latin-1").decode()


def _shut_down(directory: Path) -> bool:
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(handle)
    return True
