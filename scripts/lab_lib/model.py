"""Names, addresses and specs of hosts, and the text of the files that a host and the controller need. Pure.

Addresses are of a documentation range (RFC 5737) and live in the lab's own namespace, so labs may share them.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from scripts.lab_lib.command import LabError

NETWORK = "198.51.100"
CONTROLLER_ADDRESS = f"{NETWORK}.1"
FIRST_ADDRESS, LAST_ADDRESS = 11, 254
DEFAULT_DISK_MB = 1024
MAX_DISKS, MAX_DISK_MB = 32, 1 << 20

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_DIRECTORY = re.compile(r"[A-Za-z0-9/._+-]+")


def checked_name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise LabError(f"{what} {name!r}: a name has 1 to 31 of a-z, 0-9 and -, and begins with a letter.")
    return name


def checked_directory(directory: Path) -> Path:
    """Overlay options, mountinfo and nspawn's binds each give a meaning to some other character."""
    if not _DIRECTORY.fullmatch(str(directory)):
        raise LabError(f"{directory}: a lab's directory has only letters, digits and / . _ + - in its path; use --dir.")
    return directory


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What `up` was asked for: HOST[:DISKS[:SIZE_MB]]."""

    name: str
    disks: int = 0
    disk_mb: int = DEFAULT_DISK_MB

    @classmethod
    def parse(cls, text: str) -> Self:
        name, *numbers = text.split(":")
        if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
            raise LabError(f"{text!r}: say HOST, HOST:DISKS or HOST:DISKS:SIZE_MB.")
        spec = cls(checked_name(name, "Host"), *map(int, numbers))
        if spec.disks > MAX_DISKS or not 1 <= spec.disk_mb <= MAX_DISK_MB:
            raise LabError(f"{text!r}: at most {MAX_DISKS} disks of 1 to {MAX_DISK_MB} MB.")
        return spec


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a lab: its spec and the last byte of its address."""

    name: str
    number: int
    disks: int
    disk_mb: int

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def disk_names(self) -> list[str]:
        """d1, d2, ...: in the host /dev/disk/by-id/vstack-lab-d1 and so on."""
        return [f"d{number + 1}" for number in range(self.disks)]


def device_path(disk: str) -> str:
    """The stable name of a disk inside its host."""
    return f"/dev/disk/by-id/vstack-lab-{disk}"


def add_host(hosts: tuple[Host, ...], spec: HostSpec) -> tuple[Host, ...]:
    """The hosts with one more, at the lowest free address. One that is there, in the same shape, is no change."""
    for host in hosts:
        if host.name == spec.name:
            if host.disks != spec.disks or (host.disks and host.disk_mb != spec.disk_mb):
                raise LabError(
                    f"Host {host.name} exists with {host.disks} disks of {host.disk_mb} MB: take it down first."
                )
            return hosts
    taken = {host.number for host in hosts}
    for number in range(FIRST_ADDRESS, LAST_ADDRESS + 1):
        if number not in taken:
            return (*hosts, Host(spec.name, number, spec.disks, spec.disk_mb))
    raise LabError(f"A lab has at most {LAST_ADDRESS - FIRST_ADDRESS + 1} hosts.")


def encode_hosts(hosts: tuple[Host, ...]) -> str:
    return json.dumps({"hosts": [asdict(host) for host in hosts]}, indent=2) + "\n"


def decode_hosts(text: str) -> tuple[Host, ...]:
    return tuple(Host(**host) for host in json.loads(text)["hosts"])


def lab_id(directory: Path, name: str) -> str:
    """One word for this lab that no other lab of the machine has: names of namespaces and machines are global."""
    return f"{hashlib.sha256(str(directory).encode()).hexdigest()[:6]}-{name}"


def network_file(host: Host) -> str:
    # A pulled cable does not take a static address away.
    return (
        "[Match]\nName=host0\n\n"
        f"[Network]\nAddress={host.address}/24\nLinkLocalAddressing=no\nLLDP=no\nConfigureWithoutCarrier=yes\n"
    )


def hosts_file(hosts: tuple[Host, ...]) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    return "\n".join(lines + [f"{host.address} {host.name}" for host in hosts]) + "\n"


def udev_rules(kernel_names: dict[str, str]) -> str:
    """Stable names for disks, as a serial number gives on bare metal. `kernel_names` maps d1 to loop7."""
    return "".join(
        f'ACTION!="remove", SUBSYSTEM=="block", KERNEL=="{kernel}", SYMLINK+="disk/by-id/vstack-lab-{disk}"\n'
        for disk, kernel in kernel_names.items()
    )


def coldplug(kernel_names: list[str]) -> str:
    """A drop-in of systemd-udev-trigger.service: at boot, announce the host's own devices and no others.

    Every announcement reaches the udev of every host of the machine. With all its devices in it, the cost of a boot
    grows with the square of the number of hosts.
    """
    devices = [*(f"/sys/block/{kernel}" for kernel in kernel_names), "/sys/class/net/host0", "/sys/class/net/lo"]
    return f"[Service]\nExecStart=\nExecStart=udevadm trigger --action=add {' '.join(devices)}\n"


def inventory(hosts: tuple[Host, ...], *, key: Path, ssh: Path, known_hosts: Path, control_path: str) -> str:
    """YAML for Ansible. JSON strings are YAML strings."""
    args = f"-F none -o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes -o ServerAliveInterval=5"
    shared = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_common_args": args,
        # Labs share addresses, and Ansible names its shared connections by address.
        "ansible_control_path": control_path.replace("%", "%%"),
    }
    lines = ["all:", "  vars:", *(f"    {name}: {json.dumps(value)}" for name, value in shared.items()), "  hosts:"]
    for host in hosts:
        devices = json.dumps([device_path(disk) for disk in host.disk_names])
        lines += [f"    {host.name}:", f"      ansible_host: {host.address}", f"      lab_disks: {devices}"]
    return "\n".join(lines if hosts else [*lines[:-1], "  hosts: {}"]) + "\n"
