"""Where a lab keeps its files, the list of its hosts, and the locks that serialise commands.

DIR/labs/NAME/lab.json       the hosts
DIR/labs/NAME/key[.pub]      for root on every host
DIR/labs/NAME/known_hosts    the hosts' own keys
DIR/labs/NAME/ssh            ssh from inside the namespace
DIR/labs/NAME/hosts/HOST/    disks/, upper/, work/, root/ (mounted), console.log
"""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.lab_lib.command import LabError
from scripts.lab_lib.model import Host, decode_hosts, encode_hosts, lab_id

RUN = Path("/run/vstack-lab")


@dataclass(frozen=True, slots=True)
class LabPaths:
    """One lab's names in the file system and in the kernel."""

    directory: Path
    name: str

    @property
    def id(self) -> str:
        return lab_id(self.directory, self.name)

    @property
    def home(self) -> Path:
        return self.directory / "labs" / self.name

    @property
    def namespace(self) -> str:
        return f"vstack-lab-{self.id}"

    @property
    def state(self) -> Path:
        return self.home / "lab.json"

    @property
    def key(self) -> Path:
        return self.home / "key"

    @property
    def known_hosts(self) -> Path:
        return self.home / "known_hosts"

    @property
    def ssh(self) -> Path:
        return self.home / "ssh"

    @property
    def runtime(self) -> Path:
        """Sockets of shared ssh connections (a short path, for a socket's name has at most 107 bytes), udev's state."""
        return RUN / self.id

    @property
    def control_path(self) -> str:
        return f"{self.runtime}/%h-%r"

    def host(self, name: str) -> Path:
        return self.home / "hosts" / name


def read_hosts(paths: LabPaths) -> tuple[Host, ...]:
    try:
        return decode_hosts(paths.state.read_text())
    except FileNotFoundError:
        return ()


def write_hosts(paths: LabPaths, hosts: tuple[Host, ...]) -> None:
    temporary = paths.state.with_suffix(".new")
    temporary.write_text(encode_hosts(hosts))
    temporary.replace(paths.state)


def find_host(hosts: tuple[Host, ...], name: str) -> Host:
    for host in hosts:
        if host.name == name:
            return host
    known = ", ".join(host.name for host in hosts) or "none"
    raise LabError(f"There is no host {name} in this lab; there is: {known}.")


def lab_names(directory: Path) -> list[str]:
    labs = directory / "labs"
    return sorted(entry.name for entry in labs.iterdir() if entry.is_dir()) if labs.is_dir() else []


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One command at a time. The file stays: removing a lock file that another waits for would let two in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
