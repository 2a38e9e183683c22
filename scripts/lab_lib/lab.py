"""What the commands do, over all hosts of a lab.

Each function holds the lab's lock for as long as it changes things. What is done to several hosts is done to all of
them at once, and then awaited: a whole site can lose its power.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.lab_lib import disk, host, image, network, packages, processes, root, state
from scripts.lab_lib.command import LabError, raise_limits, run
from scripts.lab_lib.model import Host, HostSpec, add_host, inventory
from scripts.lab_lib.state import LabPaths


def cache(directory: Path, *, refresh: bool = False) -> tuple[Path, Path]:
    """(base, packages), made when they are not there."""
    with state.locked(directory / "cache.lock"):
        return image.make_base(directory), packages.make_debs(directory, refresh=refresh)


def up(paths: LabPaths, specs: list[HostSpec]) -> None:
    """Make and boot these hosts; those that run already stay as they are. Returns when ssh answers on all."""
    base, debs = cache(paths.directory)
    with _locked(paths):
        hosts = state.read_hosts(paths)
        for spec in specs:
            hosts = add_host(hosts, spec)
        _make_home(paths)
        # Written before anything is made, so that `down` knows of it.
        state.write_hosts(paths, hosts)
        wanted = {spec.name for spec in specs}
        _boot(paths, [one for one in hosts if one.name in wanted], base, debs)


def _make_home(paths: LabPaths) -> None:
    paths.home.mkdir(parents=True, exist_ok=True)
    paths.runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not paths.key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", paths.namespace, "-f", paths.key)
    # Ansible takes the path of one program.
    paths.ssh.write_text(f'#!/bin/sh\nexec {" ".join(network.inside(paths.namespace))} ssh "$@"\n')
    paths.ssh.chmod(0o755)
    network.make(paths.namespace)


def _boot(paths: LabPaths, hosts: Sequence[Host], base: Path, debs: Path) -> None:
    """Switch on those that are off, also after the machine itself restarted."""
    raise_limits()
    off = [one for one in hosts if host.find(paths, one) is None]
    for one in off:
        mounted = root.mount_root(paths.host(one.name), base)
        root.prepare_root(mounted, paths, one, debs)
    _introduce(paths)
    for one in off:
        host.start(paths, one, debs)
    for one in hosts:
        host.await_ssh(paths, one)


def _introduce(paths: LabPaths) -> None:
    """Tell every host the names of all, and the controller their keys."""
    hosts = state.read_hosts(paths)
    known = []
    for one in hosts:
        at = host.root_of(paths, one)
        if root.is_prepared(at):
            root.write_hosts(at, hosts)
            known.append(f"{one.address} {root.host_key(at)}\n")
    paths.known_hosts.write_text("".join(known))


def down(paths: LabPaths, names: list[str]) -> None:
    """Remove these hosts, or the lab with everything in it; also one that was half made or left by a dead machine."""
    with _locked(paths):
        hosts = state.read_hosts(paths)
        going = [state.find_host(hosts, name) for name in names] or list(hosts)
        host.kill(paths, going)
        for one in going:
            _remove_host(paths, one)
        if names:
            state.write_hosts(paths, tuple(one for one in hosts if one not in going))
            _introduce(paths)
            return
        processes.kill(network.inhabitants(paths.namespace))
        network.remove(paths.namespace)
        host.remove_cgroups(paths)
        shutil.rmtree(paths.runtime, ignore_errors=True)
        root.remove_root(paths.home)


def _remove_host(paths: LabPaths, one: Host) -> None:
    home = paths.host(one.name)
    _forget_connections(paths, one)
    host.remove_leftovers(paths, one)
    disk.await_release(disk.attached(home).values())
    disk.detach_all(home)
    root.remove_root(home)


def power_on(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """Boot them with the roots and the disks that they had."""
    base, debs = cache(paths.directory)
    with _locked(paths):
        _make_home(paths)
        _boot(paths, hosts, base, debs)


def power_off(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        host.power_off(paths, hosts)
        for one in hosts:
            _forget_connections(paths, one)


def power_cut(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        host.power_cut(paths, hosts)
        for one in hosts:
            _forget_connections(paths, one)


def reboot(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        for one in hosts:
            _forget_connections(paths, one)
        host.reboot(paths, hosts)


def cut(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        for one in hosts:
            network.set_cable(paths.namespace, host.find_init(paths, one), up=False)


def heal(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        for one in hosts:
            network.set_cable(paths.namespace, host.find_init(paths, one), up=True)


def freeze(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        for one in hosts:
            processes.stop_all(host.find_init(paths, one))


def thaw(paths: LabPaths, hosts: Sequence[Host]) -> None:
    with _locked(paths):
        for one in hosts:
            processes.resume_all(host.find_init(paths, one))


def _forget_connections(paths: LabPaths, one: Host) -> None:
    """Ansible's shared connection to a host that lost power would hang until it times out."""
    for socket in paths.runtime.glob(f"{one.address}-*"):
        socket.unlink(missing_ok=True)


def describe(paths: LabPaths, one: Host) -> str:
    """on, off, booting, cut, frozen."""
    running = host.find(paths, one)
    if running is None:
        return "off"
    if running.init is None:
        return "booting"
    if processes.is_stopped(running.init):
        return "frozen"
    try:
        return "on" if network.cable_is_up(paths.namespace, running.init) else "cut"
    except LabError:  # its cable comes and goes with its power
        return "booting"


def inventory_of(paths: LabPaths) -> str:
    return inventory(
        state.read_hosts(paths),
        key=paths.key,
        ssh=paths.ssh,
        known_hosts=paths.known_hosts,
        control_path=paths.control_path,
    )


def execute(paths: LabPaths, command: list[str]) -> None:
    """Become a command inside the lab's network. Does not return."""
    if not network.exists(paths.namespace):
        raise LabError(f"Lab {paths.name} is not up.")
    words = [*network.inside(paths.namespace), *command]
    os.execvp(words[0], words)  # noqa: S606  # no shell is wanted


def shell(paths: LabPaths, one: Host, command: list[str]) -> None:
    """Become a shell or a command on a host. Does not return."""
    words = host.ssh(paths, one, *command, options=() if command else ("-t",))
    os.execvp(words[0], words)  # noqa: S606  # no shell is wanted


def _locked(paths: LabPaths) -> contextlib.AbstractContextManager[None]:
    # Not in the lab's own directory, which `down` removes.
    return state.locked(paths.directory / "locks" / paths.name)
