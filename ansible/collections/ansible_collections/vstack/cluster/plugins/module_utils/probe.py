"""What a host tells about itself and its devices: the question, a shell command, and the answer. Pure.

The command needs nothing but a POSIX shell and util-linux, so it runs on a blank host before there is a Python to
trust, and it only reads. Devices are told apart by device number, because one device has many paths.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_MARK = "@vstack-probe "
_SIGNATURES = "wipefs --json --output TYPE,LABEL,USAGE"
_TREE = "lsblk --json --bytes --output NAME,TYPE,SIZE,RO,MOUNTPOINTS"
_PYTHON_VERSION = 'import sys; print("%d.%d" % sys.version_info[:2])'


@dataclass(frozen=True)
class Signature:
    """What identifies the content of a device: `type` ext4, LVM2_member, gpt and so on; `label` "" when it has none."""

    type: str
    label: str


@dataclass(frozen=True)
class Holder:
    """What stands on a device: a partition, a logical volume, an array. `kind` is lsblk's: part, lvm, crypt, raid1."""

    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Device:
    """One path and what it leads to.

    `number` is None where there is no block device, `readable` False where root could not look into it.
    """

    exists: bool
    number: str | None = None
    readable: bool = False
    size_bytes: int = 0
    read_only: bool = False
    mountpoints: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Host:
    """`os` is ID, VERSION_ID and PRETTY_NAME of /etc/os-release; `python` is None where there is none."""

    os: dict[str, str]
    machine: str
    python: tuple[int, int] | None
    is_root: bool
    devices: dict[str, Device]


def command(devices: Sequence[str]) -> str:
    """The shell command whose output `parse` understands."""
    lines = [
        'PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C; export PATH LC_ALL',
        _section("os", "cat /etc/os-release"),
        _section("machine", "uname -m"),
        _section("python", f"python3 -c {shlex.quote(_PYTHON_VERSION)}"),
        _section("uid", "id -u"),
    ]
    for number, device in enumerate(devices):
        path = shlex.quote(device)
        lines += [
            _section(f"stat {number}", f"stat --dereference --format '%F|%t:%T' {path}"),
            _section(f"tree {number}", f"{_TREE} {path}"),
            _section(f"signatures {number}", f"{_SIGNATURES} {path}"),
        ]
    # What fails has printed nothing, and `parse` knows what that means.
    return "\n".join([*lines, "exit 0"])


def _section(name: str, read: str) -> str:
    return f"echo '{_MARK}{name}'; {read} 2>/dev/null"


def parse(output: str, devices: Sequence[str]) -> Host:
    """What `command(devices)` printed. ValueError where it isn't that."""
    sections = dict(_sections(output))
    if "uid" not in sections:
        raise ValueError("the host's answer is not complete")
    python = re.fullmatch(r"(\d+)\.(\d+)", sections["python"])
    return Host(
        os=dict(_assignments(sections["os"])),
        machine=sections["machine"],
        python=(int(python[1]), int(python[2])) if python else None,
        is_root=sections["uid"] == "0",
        devices={
            path: _device(*(sections.get(f"{kind} {number}", "") for kind in ("stat", "tree", "signatures")))
            for number, path in enumerate(devices)
        },
    )


def _sections(output: str) -> Iterator[tuple[str, str]]:
    # Before the first mark there may be what a login shell prints.
    for part in ("\n" + output.replace("\r", "")).split(f"\n{_MARK}")[1:]:
        name, _, body = part.partition("\n")
        yield name.strip(), body.strip()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name, value.strip("\"'")


def _device(stat: str, tree: str, signatures: str) -> Device:
    kind, _, number = stat.partition("|")
    if kind != "block special file":
        return Device(exists=bool(stat))
    top = next(iter(_entries(tree, "blockdevices") or ()), {})
    found = _entries(signatures, "signatures")
    below = list(_below(top))
    return Device(
        exists=True,
        number=number,
        readable=bool(top) and found is not None,
        size_bytes=int(top.get("size") or 0),
        read_only=bool(top.get("ro")),
        mountpoints=tuple(point for entry in (top, *below) for point in entry.get("mountpoints") or () if point),
        holders=tuple(Holder(str(entry["name"]), str(entry["type"])) for entry in below),
        signatures=tuple(Signature(str(entry["type"]), str(entry.get("label") or "")) for entry in found or ()),
    )


def _entries(text: str, key: str) -> list[dict[str, Any]] | None:
    """The list under `key` in what a program printed as JSON; None if it failed and printed none."""
    try:
        return list(json.loads(text)[key])
    except (ValueError, LookupError):
        return None


def _below(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for child in entry.get("children") or ():
        yield child
        yield from _below(child)
