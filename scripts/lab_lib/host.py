"""One host's life: a systemd-nspawn machine, its supervisor, and what can happen to its power.

Three processes stand above a host: a shell that starts nspawn again when the host reboots (nspawn leaves with status
133 then), nspawn, and the host's first process. They are found by nspawn's --directory on their command lines.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lab_lib import disk, network, nspawn, processes, root
from scripts.lab_lib.command import LabError, await_condition
from scripts.lab_lib.model import Host
from scripts.lab_lib.state import LabPaths

BOOT_S = 120
SHUTDOWN_S = 120
SSH_ANSWER_S = 10

# Signals that systemd as the first process takes for poweroff and reboot (systemd(1)); they need no network.
POWER_OFF, REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5

# The subshell enters the host's cgroups and becomes nspawn; the loop stays outside of them. What udev knew of an
# earlier boot goes. The file is the sign by which systemd, when it starts, subscribes to udev's messages: in a
# container it would otherwise take udev for absent, and wait in vain for the disks in /etc/fstab. udev replaces it.
_SUPERVISOR = """
while :; do
  rm -rf "$LAB_UDEV" && mkdir -p "$LAB_UDEV" && : >"$LAB_UDEV/control" || exit 1
  (for group in $LAB_CGROUPS; do echo 0 >"$group/cgroup.procs" || exit 1; done; exec "$@")
  [ $? -eq 133 ] || exit
done
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A host that has power."""

    above: list[int]  # supervisor and nspawn
    init: int | None  # the host's first process, once nspawn has started it


def root_of(paths: LabPaths, host: Host) -> Path:
    return paths.host(host.name) / "root"


def machine_of(paths: LabPaths, host: Host) -> str:
    """The host's name for nspawn, which is one for the whole machine."""
    return f"{paths.id}-{host.name}"


def find(paths: LabPaths, host: Host) -> Running | None:
    above = processes.with_argument(nspawn.directory_flag(root_of(paths, host)))
    if not above:
        return None
    inits = [pid for pid in processes.children(above) if processes.is_init(pid)]
    return Running(above, inits[0] if inits else None)


def find_init(paths: LabPaths, host: Host) -> int:
    running = find(paths, host)
    if running is None or running.init is None:
        raise LabError(f"Host {host.name} has no power; switch it on with power-on.")
    return running.init


def start(paths: LabPaths, host: Host, debs: Path) -> None:
    """Switch on. Returns once `find` sees it; `await_ssh` tells when it is up. Its root is mounted."""
    folder = paths.host(host.name) / "disks"
    devices = {name: disk.attach(folder / f"{name}.img", host.disk_mb) for name in host.disk_names}
    root.write_devices(root_of(paths, host), {name: Path(device).name for name, device in devices.items()})
    disk.await_release(devices.values())
    udev = paths.runtime / f"{host.name}.udev"
    command = network.inside(paths.namespace)
    command += nspawn.command(
        machine=machine_of(paths, host),
        hostname=host.name,
        root=root_of(paths, host),
        debs=debs,
        devices=list(devices.values()),
        udev=udev,
    )
    variables = {"LAB_CGROUPS": " ".join(_make_cgroups(paths, host)), "LAB_UDEV": str(udev)}
    environment = os.environ | nspawn.ENVIRONMENT | variables
    with (paths.host(host.name) / "console.log").open("ab") as console:
        supervisor = subprocess.Popen(
            ["sh", "-c", _SUPERVISOR, "vstack-lab-host", *command],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    # Popen returns in the middle of execve(2), when the process has no command line yet.
    await_condition(
        lambda: find(paths, host) is not None or supervisor.poll() is not None, f"{host.name} is not there", BOOT_S
    )


def _make_cgroups(paths: LabPaths, host: Host) -> list[str]:
    """A cgroup for the host in the hierarchies that its systemd writes to; two hosts in one would fight over it."""
    top = Path("/sys/fs/cgroup")
    hierarchies = [top] if (top / "cgroup.procs").exists() else [top / "unified", top / "systemd"]
    groups = [tree / f"vstack-lab-{paths.id}" / host.name for tree in hierarchies if tree.is_dir()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    return [str(group) for group in groups]


def remove_leftovers(paths: LabPaths, host: Host) -> None:
    """What there is of a host outside of its own directory, once it was killed."""
    shutil.rmtree(paths.runtime / f"{host.name}.udev", ignore_errors=True)
    shutil.rmtree(Path("/run/systemd/nspawn/propagate") / machine_of(paths, host), ignore_errors=True)
    for group in _cgroups(paths):
        _remove_cgroup(group / host.name)


def remove_cgroups(paths: LabPaths) -> None:
    """Of the lab; its hosts are gone."""
    for group in _cgroups(paths):
        _remove_cgroup(group)


def _cgroups(paths: LabPaths) -> list[Path]:
    top = Path("/sys/fs/cgroup")
    name = f"vstack-lab-{paths.id}"
    return [tree / name for tree in (top, *top.iterdir()) if (tree / name).is_dir()]


def _remove_cgroup(group: Path) -> None:
    """With whoever is still in it: a host outlives its nspawn for a moment, when that is killed by somebody else."""

    def removed() -> bool:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # a process that ends just now is still counted
                processes.kill(map(int, Path(folder, "cgroup.procs").read_text().split()))
                Path(folder).rmdir()
        return not group.exists()

    await_condition(removed, f"{group} has processes", SHUTDOWN_S)


def ssh(paths: LabPaths, host: Host, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    """The words that run a command on a host; without a command, a shell."""
    settings = {"BatchMode": "yes", "StrictHostKeyChecking": "yes", "UserKnownHostsFile": paths.known_hosts}
    words = [str(paths.ssh), "-F", "none", "-q", "-i", str(paths.key), "-l", "root", *options]
    words += [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return [*words, host.address, *command]


def await_ssh(paths: LabPaths, host: Host) -> None:
    """Return when ssh answers."""
    attempts = 0

    def answers() -> bool:
        nonlocal attempts
        if find(paths, host) is None:
            console = paths.host(host.name) / "console.log"
            raise LabError(f"Host {host.name} ended while it booted; its console is in {console}.")
        # Short at first: an attempt that begins before the host is there fails only after its whole time.
        attempts += 1
        answer_s = min(attempts, SSH_ANSWER_S)
        command = ssh(paths, host, "true", options=("-o", f"ConnectTimeout={answer_s}"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=answer_s + SSH_ANSWER_S
            )
            return done.returncode == 0
        return False

    await_condition(answers, f"ssh on {host.name} does not answer", BOOT_S)


def reboot(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """As `systemctl reboot` on all at once; returns when ssh answers in the new boots."""
    inits = [_awake(paths, host) for host in hosts]
    processes.send(inits, REBOOT)
    # When the first process has ended, whatever answers later is the next boot.
    processes.await_end(inits, "reboot", SHUTDOWN_S)
    for host in hosts:
        await_ssh(paths, host)


def power_off(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """As `systemctl poweroff` on all at once; returns when they are off. Those that are off stay so."""
    running = [(_awake(paths, host), found.above) for host in hosts if (found := find(paths, host))]
    processes.send([init for init, _ in running], POWER_OFF)
    processes.await_end([pid for init, above in running for pid in (init, *above)], "power off", SHUTDOWN_S)


def _awake(paths: LabPaths, host: Host) -> int:
    init = find_init(paths, host)
    if processes.is_stopped(init):
        raise LabError(f"Host {host.name} is frozen; thaw it first.")
    return init


def power_cut(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """The cables first, so that no service can still tell of its disk's failure; then the disks; then the processes."""
    inits = {host: find_init(paths, host) for host in hosts}
    for init in inits.values():
        network.set_cable(paths.namespace, init, up=False)
    devices = [device for host in hosts for device in disk.attached(paths.host(host.name)).values()]
    disk.shut_down_file_systems(devices, [pid for init in inits.values() for pid in processes.members(init)])
    kill(paths, hosts)
    disk.await_release(devices)


def kill(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """SIGKILL from the top: nobody is left to start them again. With a host's first process every other one goes."""
    # Again, if need be: a supervisor may have started nspawn anew between a look and the blow.
    while running := [found for host in hosts if (found := find(paths, host))]:
        inits = [one.init for one in running if one.init is not None]
        processes.kill([*(pid for one in running for pid in one.above), *inits])
    for host in hosts:
        network.remove_cable(paths.namespace, machine_of(paths, host))
