"""A lab's network: one namespace with one bridge, and a cable from it to every host. There is no way out.

nspawn plugs the cable in when it starts a host; the namespace and the bridge stay when hosts go.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from scripts.lab_lib.command import LabError, run
from scripts.lab_lib.model import CONTROLLER_ADDRESS
from scripts.lab_lib.processes import all_pids, namespace

BRIDGE = "br0"


def namespace_path(name: str) -> Path:
    return Path("/run/netns") / name


def exists(name: str) -> bool:
    """Or a file that is no mount point, which an interrupted `ip netns` leaves."""
    return namespace_path(name).exists()


def make(name: str) -> None:
    """The namespace with its bridge up; nothing happens when it is there."""
    if not exists(name):
        run("ip", "netns", "add", name)
    if BRIDGE not in _links(name):
        run("ip", "-n", name, "link", "add", BRIDGE, "type", "bridge")
    run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", name, "address", "replace", f"{CONTROLLER_ADDRESS}/24", "dev", BRIDGE)
    run("ip", "-n", name, "link", "set", BRIDGE, "up")


def remove(name: str) -> None:
    """The name goes now, the namespace with its last process."""
    if exists(name):
        run("ip", "netns", "delete", name)


def inhabitants(name: str) -> list[int]:
    """Processes that run in the namespace itself, load clients for example; those of hosts have their own."""
    if not exists(name):
        return []
    home = f"net:[{namespace_path(name).stat().st_ino}]"
    return [pid for pid in all_pids() if namespace(pid, "net") == home]


def inside(name: str) -> list[str]:
    """The words to put before a command. `ip netns exec` would also remount /sys, and hide the cgroups."""
    return ["nsenter", f"--net={namespace_path(name)}", "--"]


def cable_is_up(name: str, init: int) -> bool:
    return "UP" in _links(name)[_cable(name, init)]["flags"]


def set_cable(name: str, init: int, *, up: bool) -> None:
    """Plug in or pull the cable of the host whose first process is `init`."""
    run("ip", "-n", name, "link", "set", _cable(name, init), "up" if up else "down")


def remove_cable(name: str, machine: str) -> None:
    """Of a host that was killed: its network lives on for as long as its last connections try to reach the other
    side, minutes perhaps, and until then no other cable can be plugged in. nspawn shortens a long name and keeps the
    whole one beside it.
    """
    if not os.path.ismount(namespace_path(name)):  # Path.is_mount() is false for a file
        return
    wanted = f"vb-{machine}"
    for port, link in _links(name).items():
        if wanted in (port, *link.get("altnames", ())):
            with contextlib.suppress(LabError):  # it has just gone by itself
                run("ip", "-n", name, "link", "delete", port)


def _links(name: str) -> dict[str, dict[str, Any]]:
    return {link["ifname"]: link for link in json.loads(run("ip", "-n", name, "-json", "link", "show"))}


def _cable(name: str, init: int) -> str:
    """The port of the bridge. nspawn chooses its name, so it is found from the host's end."""
    host_end = json.loads(run("nsenter", f"--net=/proc/{init}/ns/net", "ip", "-json", "link", "show", "host0"))
    for port, link in _links(name).items():
        if link["ifindex"] == host_end[0]["link_index"]:
            return port
    raise LabError("The host has no cable in this lab's network.")
