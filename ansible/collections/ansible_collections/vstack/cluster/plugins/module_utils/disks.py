"""What the list `vstack_disks` of a host means. Pure: no Ansible in here, so that it is tested without.

Owns names, ports and places of a storage host's disks. Invariants: names, devices and ports are unique on a host; the
default port of a disk depends only on its place in the list, so giving one disk a port of its own moves no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

FIRST_PORT = 8081
# The uploader and the client stand among the numbers that disks would take.
SKIPPED_PORTS = frozenset({8084, 8888})
MAX_DISKS = 64
MOUNT_ROOT = "/srv/vstack"
LABEL_PREFIX = "vstack-"
# What the file system has room for as a label.
LABEL_CHARACTERS = {"ext4": 16, "xfs": 12}
KEYS = frozenset({"name", "device", "port", "node_id", "fstype", "capacity_bytes"})
PLACEHOLDER = "CHANGE-ME"

_NAME = re.compile(r"[a-z0-9]+")
_NODE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEVICE = re.compile(r"/dev/[^\s\"'\\]+")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk of a storage host, and the storage process on it. `capacity_bytes` 0 is the whole file system."""

    name: str
    device: str
    port: int
    node_id: str | None
    fstype: str
    capacity_bytes: int

    @property
    def label(self) -> str:
        """The label of the disk's file system: how V-Stack knows a disk of its own."""
        return LABEL_PREFIX + self.name

    @property
    def mount(self) -> str:
        return f"{MOUNT_ROOT}/{self.name}"

    @property
    def unit(self) -> str:
        return f"vstack-storage@{self.name}.service"

    def as_dict(self) -> dict[str, object]:
        """What the filter gives to templates."""
        return {
            **asdict(self),
            "label": self.label,
            "mount": self.mount,
            "data_dir": f"{self.mount}/node",
            "unit": self.unit,
        }


def default_ports() -> Iterator[int]:
    """8081, 8082, 8083, 8085, 8086 and so on."""
    return (port for port in range(FIRST_PORT, 65536) if port not in SKIPPED_PORTS)


def normalise(entries: object) -> tuple[list[Disk], list[str]]:
    """The disks that `vstack_disks` names, and a sentence for each mistake. Entries with mistakes are left out."""
    if not isinstance(entries, (list, tuple)):
        return [], ["vstack_disks must be a list of disks like {name: d1, device: /dev/disk/by-id/...}"]
    if len(entries) > MAX_DISKS:
        return [], [f"vstack_disks has {len(entries)} disks; a host may have at most {MAX_DISKS}"]
    disks: list[Disk] = []
    problems: list[str] = []
    for number, (entry, port) in enumerate(zip(entries, default_ports(), strict=False), start=1):
        found = _Entry(number, entry, port)
        problems += found.problems
        if found.disk is not None:
            disks.append(found.disk)
    return disks, problems + _twice(disks)


class _Entry:
    """One entry of the list: its `disk`, or None and the `problems`."""

    def __init__(self, number: int, entry: object, default_port: int) -> None:
        self.problems: list[str] = []
        self.disk: Disk | None = None
        self._where = f"disk {number} of vstack_disks"
        if not isinstance(entry, dict):
            self._problem("must look like {name: d1, device: /dev/disk/by-id/...}")
            return
        if isinstance(entry.get("name"), str) and entry["name"]:
            self._where = f"disk {entry['name']}"
        self._entry = entry
        self._check_keys()
        fstype = self._fstype()
        disk = Disk(
            name=self._name(fstype),
            device=self._device(),
            port=self._number("port", default_port, 1024, 65535),
            node_id=self._node_id(),
            fstype=fstype,
            capacity_bytes=self._number("capacity_bytes", 0, 0, 1 << 60),
        )
        if not self.problems:
            self.disk = disk

    def _problem(self, sentence: str) -> None:
        self.problems.append(f"{self._where} {sentence}")

    def _check_keys(self) -> None:
        for key in sorted(map(str, self._entry.keys() - KEYS)):
            self._problem(f"has the unknown key `{key}`: known are {', '.join(sorted(KEYS))}")

    def _fstype(self) -> str:
        fstype = self._entry.get("fstype", "ext4")
        if isinstance(fstype, str) and fstype in LABEL_CHARACTERS:
            return str(fstype)
        self._problem(f"has fstype {_shown(fstype)}: use {' or '.join(LABEL_CHARACTERS)}")
        return "ext4"

    def _name(self, fstype: str) -> str:
        name = self._entry.get("name")
        room = LABEL_CHARACTERS[fstype] - len(LABEL_PREFIX)
        if name is None:
            self._problem("has no name: add one like `name: d1`")
        elif not isinstance(name, str):
            self._problem(f"has the name {_shown(name)}, which is no text: write it in quotes")
        elif not _NAME.fullmatch(name) or len(name) > room:
            self._problem(f"needs a name of 1 to {room} characters a-z and 0-9 (its {fstype} label has no more room)")
        return str(name)

    def _device(self) -> str:
        device = self._entry.get("device")
        if device is None:
            self._problem("has no device: add one like `device: /dev/disk/by-id/...`")
        elif isinstance(device, str) and PLACEHOLDER in device:
            self._problem(f"still has the example's device {device}: put in the path of the host's own disk")
        elif not isinstance(device, str) or not _DEVICE.fullmatch(device):
            self._problem(f"has the device {_shown(device)}: give a path below /dev, best from /dev/disk/by-id")
        return str(device)

    def _node_id(self) -> str | None:
        node_id = self._entry.get("node_id")
        if node_id is None or (isinstance(node_id, str) and _NODE_ID.fullmatch(node_id)):
            return None if node_id is None else str(node_id)
        self._problem(f"has the node_id {_shown(node_id)}: use up to 64 characters of A-Z, a-z, 0-9, _ and - as text")
        return None

    def _number(self, key: str, default: int, low: int, high: int) -> int:
        value = self._entry.get(key)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        self._problem(f"has {key} {_shown(value)}: give a number from {low} to {high}, without quotes")
        return default


def _twice(disks: list[Disk]) -> list[str]:
    """A sentence for each name, device or port that two disks share."""
    problems = []
    for key in ("name", "device", "port"):
        first: dict[object, Disk] = {}
        for disk in disks:
            value = getattr(disk, key)
            other = first.setdefault(value, disk)
            if other is not disk:
                problems.append(_same(key, value, other, disk))
    return problems


def _same(key: str, value: object, one: Disk, two: Disk) -> str:
    if key == "name":
        return f"two disks have the name {value}: names are unique on a host"
    if key == "device":
        return f"disks {one.name} and {two.name} are the same device {value}: name each device once"
    return f"disks {one.name} and {two.name} have the same port {value}: give one of them another `port`"


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 80 else f"{text[:77]}..."
