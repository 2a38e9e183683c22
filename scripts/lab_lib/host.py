"""One host's life: a systemd-nspawn machine, its supervisor, and what can happen to its power.

Three processes stand above a host: a shell that starts nspawn again when the host reboots (nspawn leaves with status
133 then), nspawn, and the host's first process. They are found by nspawn's --directory on their command lines.
"""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab_lib import disk, network, processes
from lab_lib.command import LabError, await_condition
from lab_lib.model import Host, udev_rules
from lab_lib.state import LabPaths

BOOT_S = 120
SHUTDOWN_S = 120
SSH_ANSWER_S = 10

# Signals that systemd as the first process takes for poweroff and reboot (systemd(1)); they need no network.
POWER_OFF, REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5

# The subshell enters the host's cgroups and becomes nspawn; the loop stays outside of them.
_SUPERVISOR = """
while :; do
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


def find(paths: LabPaths, host: Host) -> Running | None:
    above = processes.with_argument(f"--directory={root_of(paths, host)}")
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
    """Switch on. Returns at once; `await_ssh` tells when it is up. Its root is mounted, its disks are attached."""
    devices = attach_disks(paths, host)
    rules = {name: device.removeprefix("/dev/") for name, device in devices.items()}
    (root_of(paths, host) / "etc/udev/rules.d/61-lab-disks.rules").write_text(udev_rules(rules))
    disk.await_release(devices.values())
    groups = _make_cgroups(paths, host)
    command = [*network.inside(paths.namespace), *_nspawn(paths, host, debs, list(devices.values()))]
    environment = os.environ | {
        "LAB_CGROUPS": " ".join(map(str, groups)),
        # /sys writable: systemd-udevd runs only then, and without it nothing in /etc/fstab is mounted at boot.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
    }
    with (paths.host(host.name) / "console.log").open("ab") as console:
        subprocess.Popen(
            ["sh", "-c", _SUPERVISOR, "vstack-lab-host", *command],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def _nspawn(paths: LabPaths, host: Host, debs: Path, devices: list[str]) -> list[str]:
    """Each flag with its reason; those that bring a capability were tried without."""
    return [
        "systemd-nspawn",
        "--quiet",
        f"--machine={paths.id}-{host.name}",  # unique on this machine: nspawn keeps files in /run by it
        f"--hostname={host.name}",
        f"--directory={root_of(paths, host)}",
        "--boot",
        "--keep-unit",  # no scope unit: the machine's own first process need not be systemd
        "--register=no",  # nor does it need machined
        f"--network-bridge={network.BRIDGE}",
        "--console=pipe",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        f"--bind-ro={debs}:/opt/debs",
        # /proc/sys is the whole machine's, except for the network's part, which is the host's own.
        "--bind-ro=/proc/sys",
        "--bind=/proc/sys/net",
        *(f"--bind={device}" for device in devices),
    ]


def attach_disks(paths: LabPaths, host: Host) -> dict[str, str]:
    """Name to device, in order."""
    folder = paths.host(host.name) / "disks"
    return {name: disk.attach(folder / f"{name}.img", host.disk_mb) for name in host.disk_names}


def _make_cgroups(paths: LabPaths, host: Host) -> list[Path]:
    """A cgroup for the host in the hierarchies that its systemd writes to; two hosts in one would fight over it."""
    top = Path("/sys/fs/cgroup")
    hierarchies = [top] if (top / "cgroup.procs").exists() else [top / "unified", top / "systemd"]
    groups = [tree / f"vstack-lab-{paths.id}" / host.name for tree in hierarchies if tree.is_dir()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    return groups


def remove_cgroups(paths: LabPaths, host: Host | None = None) -> None:
    """Of a host that is off, or of the lab."""
    for group in Path("/sys/fs/cgroup").glob(f"**/vstack-lab-{paths.id}"):
        for folder, _, _ in os.walk(group / host.name if host else group, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)


def ssh(paths: LabPaths, host: Host, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    """The words that run a command on a host; without a command, a shell."""
    settings = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": paths.known_hosts,
        "ConnectTimeout": SSH_ANSWER_S,
    }
    words = [str(paths.ssh), "-F", "none", "-q", "-i", str(paths.key), "-l", "root"]
    words += [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return [*words, *options, host.address, *command]


def boot_id(paths: LabPaths, host: Host) -> str | None:
    """Of the running boot; None while ssh does not answer."""
    command = ssh(paths, host, "cat", "/proc/sys/kernel/random/boot_id")
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SSH_ANSWER_S
        )
        return done.stdout.strip() or None
    return None


def await_ssh(paths: LabPaths, host: Host, *, after: str | None = None) -> None:
    """Return when ssh answers, with another boot id than `after`."""

    def answers() -> bool:
        if find(paths, host) is None:
            console = paths.host(host.name) / "console.log"
            raise LabError(f"Host {host.name} ended while it booted; its console is in {console}.")
        return boot_id(paths, host) not in {None, after}

    await_condition(answers, f"ssh on {host.name} does not answer", BOOT_S)


def reboot(paths: LabPaths, host: Host) -> None:
    """As `systemctl reboot`; returns when ssh answers in the new boot."""
    before = boot_id(paths, host)
    init = find_init(paths, host)
    processes.send([init], REBOOT)
    processes.await_end([init], f"{host.name} reboots", SHUTDOWN_S)
    await_ssh(paths, host, after=before)


def power_off(paths: LabPaths, host: Host) -> None:
    """As `systemctl poweroff`; returns when it is off. Nothing happens when it is."""
    if running := find(paths, host):
        if running.init is None:
            kill(paths, host)
            return
        processes.send([running.init], POWER_OFF)
        processes.await_end([running.init, *running.above], f"{host.name} powers off", SHUTDOWN_S)


def power_cut(paths: LabPaths, host: Host) -> None:
    """The cable first, so that no service can still tell of the disks' failure; then the disks; then the processes."""
    init = find_init(paths, host)
    network.set_cable(paths.namespace, init, up=False)
    devices = disk.attached(paths.host(host.name)).values()
    disk.shut_down_file_systems(devices, processes.members(init))
    kill(paths, host)
    disk.await_release(devices)


def kill(paths: LabPaths, host: Host) -> None:
    """SIGKILL from the top: nobody is left to start it again. With its first process every other one goes."""
    if running := find(paths, host):
        inside = processes.members(running.init) if running.init is not None else []
        processes.kill(running.above)
        processes.kill(inside)
