"""Whether a host can take V-Stack, and whether its disks are empty or V-Stack's own. Pure; each problem is a sentence.

Invariant: a device passes only if it is empty, carries V-Stack's own label for this very name, or is named in the list
of devices that may be wiped; and nothing that is in use passes at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence

from ansible_collections.vstack.cluster.plugins.module_utils.disks import LABEL_PREFIX, Disk
from ansible_collections.vstack.cluster.plugins.module_utils.probe import Device, Host

MIN_OS = {"debian": (12,), "ubuntu": (24, 4)}
# A release has wheels for these, built for this machine.
MIN_PYTHON, MAX_PYTHON = (3, 11), (3, 13)
MACHINE = "x86_64"


def check(name: str, host: Host, disks: Sequence[Disk], wipe: Collection[str]) -> list[str]:
    """What is wrong with host `name`, for the disks that it is to have."""
    problems = [f"{name} {problem}" for problem in _system(host)]
    if disks and not host.is_root:
        return [*problems, f"{name}: only root may look at devices: log in as root, or set `ansible_become: true`"]
    problems += [f"{name}: {problem}" for problem in _one_device_twice(host, disks)]
    for disk in disks:
        problem = _use(host.devices[disk.device], disk) or _content(host.devices[disk.device], disk, wipe)
        if problem:
            problems.append(f"{name}: disk {disk.name}: {disk.device} {problem}")
    return problems


def _system(host: Host) -> Iterator[str]:
    known = MIN_OS.get(host.os.get("ID", ""))
    version = tuple(int(part) for part in re.findall(r"\d+", host.os.get("VERSION_ID", "")))
    if known is None or version < known:
        found = host.os.get("PRETTY_NAME") or "an unknown system"
        yield f"runs {found}: install Debian 12 or newer, or Ubuntu 24.04 or newer"
    if host.machine != MACHINE:
        yield f"is of kind {host.machine or 'unknown'}: releases are made for {MACHINE}"
    if host.python is None:
        yield "has no Python: install the package python3"
    elif not MIN_PYTHON <= host.python <= MAX_PYTHON:
        found, low, high = (".".join(map(str, version)) for version in (host.python, MIN_PYTHON, MAX_PYTHON))
        yield f"has Python {found}: a release runs on Python {low} to {high}"


def _one_device_twice(host: Host, disks: Sequence[Disk]) -> Iterator[str]:
    first: dict[str, Disk] = {}
    for disk in disks:
        number = host.devices[disk.device].number
        other = first.setdefault(number, disk) if number else disk
        if other is not disk:
            yield (
                f"disks {other.name} and {disk.name} are the same device: {other.device} and {disk.device} lead to one "
                f"disk, so name it once"
            )


def _use(device: Device, disk: Disk) -> str:
    """Why a device can't be used at all, whatever is on it; "" if it can."""
    elsewhere = [point for point in device.mountpoints if point != disk.mount]
    stacked = [f"{holder.name} ({holder.kind})" for holder in device.holders if holder.kind != "part"]
    reasons = (
        (not device.exists, "does not exist on this host: look for the right path with `ls -l /dev/disk/by-id`"),
        (device.number is None, "is no block device: name a disk or a partition"),
        (elsewhere, f"is mounted on {', '.join(elsewhere)}: unmount it there first, or name another device"),
        (stacked, f"is in use by {', '.join(stacked)}: take that apart first, or name another device"),
        (not device.readable, "cannot be read, even by root: look at the kernel's messages, or name another device"),
        (device.size_bytes == 0, "has no medium: its size is 0"),
        (device.read_only, "is read-only: name another device"),
    )
    return next((sentence for holds, sentence in reasons if holds), "")


def _content(device: Device, disk: Disk, wipe: Collection[str]) -> str:
    """Why what is on a device, which nothing uses, keeps it from being this disk; "" if nothing does."""
    types = {signature.label: signature.type for signature in device.signatures}
    if disk.label in types and not device.holders:
        found = types[disk.label]
        return "" if found == disk.fstype else f"is V-Stack's own and has {found}: set `fstype: {found}` for it"
    if disk.device in wipe or not (device.signatures or device.holders):
        return ""
    allow = "if it may be lost, add -e '{}'".format(json.dumps({"vstack_disks_wipe": [disk.device]}))
    own = [label.removeprefix(LABEL_PREFIX) for label in types.keys() - {disk.label} if label.startswith(LABEL_PREFIX)]
    if own:
        return f"is V-Stack's disk {own[0]}, not {disk.name}: correct the name or the device; {allow}"
    return f"holds data ({_found(device)}) and is left alone: name another device; {allow}"


def _found(device: Device) -> str:
    found = [
        f"{signature.type} with label {signature.label}" if signature.label else signature.type
        for signature in device.signatures
    ]
    found += [f"partition {holder.name}" for holder in device.holders]
    return ", ".join(dict.fromkeys(found))
