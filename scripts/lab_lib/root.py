"""A host's own root file system: an overlay over the base, with a name, an address, keys and a package source.

The overlay stays mounted while the lab exists. Whatever the host writes stays until the host is taken down.
"""

import shutil
import uuid
from pathlib import Path

from scripts.lab_lib.command import LabError, run
from scripts.lab_lib.model import Host, coldplug, hosts_file, network_file, udev_rules
from scripts.lab_lib.state import LabPaths

HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def mount_points_below(directory: Path) -> list[str]:
    """Innermost first. Paths of a lab have no characters that mountinfo would escape."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in reversed(points) if point == str(directory) or point.startswith(f"{directory}/")]


def mount_root(home: Path, base: Path) -> Path:
    """Mounted at HOME/root; nothing happens when it is. The base that a host began with stays its base."""
    root, upper, work, lower = home / "root", home / "upper", home / "work", home / "lower"
    for folder in (root, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    if str(root) not in mount_points_below(home):
        if not lower.is_symlink():
            lower.symlink_to(base)
        options = f"lowerdir={lower.readlink()},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", options, root)
    return root


def remove_root(home: Path) -> None:
    """Unmount and remove all of a host's files. Raises LabError when something below is still mounted."""
    for point in mount_points_below(home):
        run("umount", point)
    if left := mount_points_below(home):
        raise LabError(f"Still mounted, so nothing was removed: {', '.join(left)}")
    if home.exists():
        shutil.rmtree(home)


def prepare_root(root: Path, paths: LabPaths, host: Host, debs: Path) -> None:
    """What makes it this host; nothing happens when that was done. The other hosts' names come by `write_hosts`."""
    if is_prepared(root):
        return
    (root / "etc/hostname").write_text(f"{host.name}\n")
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    (root / "etc/systemd/network/10-host0.network").write_text(network_file(host))
    # apt's own copy of the index: a role that installs without updating first works as on a real host.
    shutil.copyfile(debs / "Packages", root / "var/lib/apt/lists/_opt_debs_._Packages")
    ssh = root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(paths.key.with_suffix(".pub"), ssh / "authorized_keys")
    key = root / HOST_KEY
    key.unlink(missing_ok=True)  # of a preparation that was interrupted: the program would ask
    # Last: its public half says that all of this was done.
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", key)


def is_prepared(root: Path) -> bool:
    return (root / f"{HOST_KEY}.pub").exists()


def host_key(root: Path) -> str:
    """Type and key, as in known_hosts."""
    return " ".join((root / f"{HOST_KEY}.pub").read_text().split()[:2])


def write_hosts(root: Path, hosts: tuple[Host, ...]) -> None:
    """All hosts of the lab by name; a file that the running host sees at once."""
    (root / "etc/hosts").write_text(hosts_file(hosts))


def write_devices(root: Path, kernel_names: dict[str, str]) -> None:
    """Which devices are the host's own; `kernel_names` maps d1 to loop7. They may be others at its next boot."""
    drop_in = root / "etc/systemd/system/systemd-udev-trigger.service.d"
    drop_in.mkdir(parents=True, exist_ok=True)
    (drop_in / "lab.conf").write_text(coldplug(list(kernel_names.values())))
    (root / "etc/udev/rules.d/61-lab-disks.rules").write_text(udev_rules(kernel_names))
