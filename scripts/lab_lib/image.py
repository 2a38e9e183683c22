"""The base root file system that every host is an overlay of: a minimal Debian or Ubuntu with systemd, Python and sshd.

Invariants: a base is complete or absent (it is built aside and renamed); it is never changed afterwards, because
mounted overlays stand on it, so a different recipe makes a different directory. Nothing that a role installs is in it:
a role that finds its work done proves nothing. No secret is in it.
"""

import hashlib
import platform
import shutil
from pathlib import Path

from scripts.lab_lib.command import LabError, run
from scripts.lab_lib.sources import Sources, distribution_sources

# udev: disks get their names, and mounts by UUID their devices, by the same rules as on bare metal.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
# Raise it when `_finish` changes.
RECIPE = 2
DEBOOTSTRAP_S = 1200


def codename() -> str:
    """The release of this machine; hosts run the same."""
    try:
        return platform.freedesktop_os_release()["VERSION_CODENAME"]
    except (OSError, KeyError) as error:
        raise LabError(
            "/etc/os-release names no VERSION_CODENAME: the lab needs a Debian or Ubuntu machine."
        ) from error


def machine_sources() -> Sources:
    directory = Path("/etc/apt")
    files = [directory / "sources.list", *directory.glob("sources.list.d/*.list")]
    files += directory.glob("sources.list.d/*.sources")
    sources = distribution_sources({str(file): file.read_text() for file in files if file.is_file()}, codename())
    if sources.mirror is None:
        raise LabError(f"The apt sources of this machine (/etc/apt) have no mirror of {codename()}.")
    return sources


def base_path(directory: Path) -> Path:
    recipe = hashlib.sha256(repr((RECIPE, PACKAGES)).encode()).hexdigest()[:8]
    return directory / f"base-{codename()}-{recipe}"


def make_base(directory: Path) -> Path:
    """The base, built when it is not there. The caller holds the lock of the cache."""
    base = base_path(directory)
    if base.is_dir():
        return base
    mirror = machine_sources().mirror
    assert mirror is not None
    building = base.with_suffix(".building")
    if building.exists():
        _unmount_below(building)
        shutil.rmtree(building)
    print(f"Building the base root file system ({codename()}), about a minute ...", flush=True)
    include = f"--include={','.join(PACKAGES)}"
    run("debootstrap", "--variant=minbase", include, codename(), building, mirror, timeout_s=DEBOOTSTRAP_S)
    _finish(building)
    building.rename(base)
    return base


def _unmount_below(directory: Path) -> None:
    """An interrupted debootstrap leaves /proc and /sys mounted in what it built."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{directory}/"):
            run("umount", line.split()[4])


def _finish(base: Path) -> None:
    """What every host has in common and no role is about: no name of its own, a network, quiet timers."""
    for old in [*base.glob("etc/ssh/ssh_host_*"), *base.glob("var/cache/apt/archives/*.deb")]:
        old.unlink()
    shutil.rmtree(base / "var/lib/apt/lists")
    (base / "var/lib/apt/lists/partial").mkdir(parents=True)
    (base / "etc/machine-id").write_text("")
    # Names come from /etc/hosts; without a server a lookup fails at once instead of waiting for one.
    (base / "etc/resolv.conf").unlink(missing_ok=True)
    (base / "etc/resolv.conf").write_text("")
    (base / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/opt/debs ./\n")
    (base / "opt/debs").mkdir()
    # A host is thrown away after the test, so installing need not wait for the disk.
    (base / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")
    (base / "etc/apt/apt.conf.d/90lab").write_text('Acquire::Languages "none";\n')
    run("systemctl", f"--root={base}", "enable", "systemd-networkd.service")
    # What an installer sets; PostgreSQL for one takes the encoding of its first cluster from it.
    (base / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    # The console is a file: a login on it fails for ever.
    masked = ("apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service")
    run("systemctl", f"--root={base}", "mask", *masked)
