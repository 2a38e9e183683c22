"""How a host is started: systemd-nspawn's command line, each flag with its reason.

Two things differ from nspawn's own choice. /sys is writable, because udev runs only then, and without udev systemd
ignores every device in /etc/fstab: disks would not be mounted at boot, nor appear in /dev/disk. And services of the
host may load BPF programs, with which systemd enforces IPAddressDeny (and DeviceAllow where the machine has only
cgroup v2). Everything else that hardened units ask for works with nspawn's own set of capabilities and system calls:
user, mount, network and IPC namespaces, DynamicUser, LoadCredential, SystemCallFilter, ProtectProc, and nftables in
the host's own network.

What a host cannot have: a disk's I/O scheduler, sysctls other than net.*, a clock of its own, more than the machine's
limits (open files for example). Where the machine still has cgroup v1 controllers, MemoryMax, CPUQuota and DeviceAllow
are accepted and not enforced.
"""

from pathlib import Path

from scripts.lab_lib.network import BRIDGE

ENVIRONMENT = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}


def directory_flag(root: Path) -> str:
    """By this word the processes of a host are found."""
    return f"--directory={root}"


def command(*, machine: str, hostname: str, root: Path, debs: Path, devices: list[str], udev: Path) -> list[str]:
    # With /sys comes /proc/sys, and that is the whole machine's, all but the network's part.
    shared = sorted(str(path) for path in Path("/proc/sys").iterdir() if path.name != "net")
    return [
        "systemd-nspawn",
        "--quiet",
        f"--machine={machine}",
        f"--hostname={hostname}",
        directory_flag(root),
        "--boot",
        "--keep-unit",  # no scope unit: the machine's first process need not be systemd
        "--register=no",  # nor does it need machined
        f"--network-bridge={BRIDGE}",
        "--console=pipe",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--system-call-filter=bpf",
        f"--bind-ro={debs}:/opt/debs",
        f"--bind={udev}:/run/udev",
        *(f"--bind-ro={path}" for path in shared),
        *(f"--bind={device}" for device in devices),
    ]
