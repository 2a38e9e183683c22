"""The command line of scripts/lab."""

import argparse
import os
import sys
import time
from pathlib import Path

from scripts.lab_lib import lab, state
from scripts.lab_lib.command import LabError, check_machine
from scripts.lab_lib.model import HostSpec, checked_directory, checked_name
from scripts.lab_lib.state import LabPaths

CHECKOUT = Path(__file__).resolve().parents[2]

HOST_COMMANDS = {
    "cut": (lab.cut, "pull its network cable"),
    "heal": (lab.heal, "plug it in again"),
    "freeze": (lab.freeze, "stop all its processes (SIGSTOP)"),
    "thaw": (lab.thaw, "let them go on"),
    "power-cut": (lab.power_cut, "disks and processes stop at once, nothing is flushed"),
    "power-on": (lab.power_on, "boot with the disks and the root that it had"),
    "off": (lab.power_off, "shut it down properly"),
    "reboot": (lab.reboot, "reboot; returns when ssh answers in the new boot"),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="scripts/lab", description="Real systemd hosts in one isolated network.")
    top.add_argument("--name", default="vstack", help="name of the lab; several stand side by side")
    directory = Path(os.environ.get("VSTACK_LAB_DIR", CHECKOUT / ".lab"))
    top.add_argument("--dir", type=Path, default=directory, help="where labs and the cache live ($VSTACK_LAB_DIR)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("cache", help="prepare the base root file system and the package folder")
    command.add_argument("--refresh", action="store_true", help="ask the mirrors for newer packages")
    command = commands.add_parser("up", help="make and boot hosts; returns when ssh answers")
    command.add_argument("hosts", nargs="+", metavar="HOST[:DISKS[:SIZE_MB]]")
    command = commands.add_parser("down", help="remove hosts, or the whole lab")
    command.add_argument("hosts", nargs="*", metavar="HOST")
    commands.add_parser("list", help="labs and their hosts")
    commands.add_parser("inventory", help="print an Ansible inventory of the hosts")
    for name, (_, text) in HOST_COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("hosts", nargs="+", metavar="HOST")
    command = commands.add_parser("shell", help="a shell or a command on a host, as root")
    command.add_argument("host", metavar="HOST")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    command = commands.add_parser("exec", help="a command inside the lab's network, on this machine")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD")
    return top


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        check_machine()
        directory = checked_directory(options.dir.resolve())
        _dispatch(options, LabPaths(directory, checked_name(options.name, "Lab")))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _dispatch(options: argparse.Namespace, paths: LabPaths) -> None:
    begun = time.monotonic()
    match options.command:
        case "cache":
            base, debs = lab.cache(paths.directory, refresh=options.refresh)
            print(f"base {base}\npackages {debs}")
        case "up":
            lab.up(paths, [HostSpec.parse(text) for text in options.hosts])
            print(f"{len(options.hosts)} hosts up in {time.monotonic() - begun:.1f} s")
        case "down":
            lab.down(paths, options.hosts)
        case "list":
            _list(paths.directory)
        case "inventory":
            print(lab.inventory_of(paths), end="")
        case "shell":
            lab.shell(paths, state.find_host(state.read_hosts(paths), options.host), options.words)
        case "exec":
            words = options.words[1:] if options.words[:1] == ["--"] else options.words
            if not words:
                raise LabError("exec needs a command: scripts/lab exec -- CMD")
            lab.execute(paths, words)
        case name:
            act, _ = HOST_COMMANDS[name]
            hosts = state.read_hosts(paths)
            act(paths, [state.find_host(hosts, host) for host in options.hosts])


def _list(directory: Path) -> None:
    for name in state.lab_names(directory):
        paths = LabPaths(directory, name)
        print(f"{name} (namespace {paths.namespace})")
        for one in state.read_hosts(paths):
            disks = f"{one.disks} disks of {one.disk_mb} MB" if one.disks else "no disk"
            print(f"  {one.name:<20} {one.address:<16} {lab.describe(paths, one):<8} {disks}")
