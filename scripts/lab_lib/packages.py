"""The folder of .debs that hosts install from, as an apt source without network.

The folder has the packages of packages.txt and all that they depend on beyond the base. It is filled by the machine's
own apt (its mirrors, keys and proxy) which is told to look at the base's dpkg status instead of the machine's. Only
what is missing is downloaded. Running hosts see the folder, so its index is replaced in one step.
"""

import hashlib
from pathlib import Path

from scripts.lab_lib.command import LabError, run
from scripts.lab_lib.image import base_path, codename, machine_sources

LIST = Path(__file__).with_name("packages.txt")
DOWNLOAD_S = 1800


def debs_path(directory: Path) -> Path:
    return directory / f"debs-{codename()}"


def wanted_packages(text: str) -> list[str]:
    """The names in a list with comments and empty lines."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return sorted({line for line in lines if line})


def make_debs(directory: Path, *, refresh: bool = False) -> Path:
    """The folder, filled. Nothing is asked of the network when the list is the one of last time, unless `refresh`.

    The caller holds the lock of the cache and has made the base.
    """
    debs, base = debs_path(directory), base_path(directory)
    packages = wanted_packages(LIST.read_text())
    # The base is in it: what the base has is not in the folder.
    digest = hashlib.sha256(repr((packages, base.name)).encode()).hexdigest()
    stamp = debs / ".complete"
    if not refresh and stamp.is_file() and stamp.read_text() == digest:
        return debs
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    print(f"Downloading what is missing of {len(packages)} packages and their dependencies ...", flush=True)
    options = _apt_options(directory, base, debs)
    run("apt-get", *options, "-qq", "update", timeout_s=DOWNLOAD_S)
    _download(options, packages)
    _write_index(debs)
    stamp.write_text(digest)
    return debs


def _apt_options(directory: Path, base: Path, debs: Path) -> list[str]:
    """An apt of our own: the machine's configuration and keys, but our sources, lists, status and archives."""
    sources = machine_sources()
    home = directory / "apt"
    parts = home / "sources.list.d"
    for folder in (parts, home / "lists/partial", home / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    (parts / "machine.list").write_text(sources.one_line)
    (parts / "machine.sources").write_text(sources.deb822)
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::State": home,
        "Dir::State::lists": home / "lists",
        "Dir::State::status": base / "var/lib/dpkg/status",
        "Dir::State::extended_states": home / "extended_states",
        "Dir::Cache": home / "cache",
        "Dir::Cache::archives": debs,
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Sandbox::User": "root",  # the folders are ours, not those of apt's own user
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "APT::Update::Post-Invoke::": "",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _download(options: list[str], packages: list[str]) -> None:
    command = ["apt-get", *options, "-q", "-y", "--download-only", "install"]
    try:
        run(*command, *packages, timeout_s=DOWNLOAD_S)
    except LabError:
        # Packages that exclude each other cannot be resolved together, only each by itself.
        for package in packages:
            run(*command, package, timeout_s=DOWNLOAD_S)


def _write_index(debs: Path) -> None:
    # Names in the index are relative to the folder, and the program takes them as it was given them.
    text = run("env", f"--chdir={debs}", "dpkg-scanpackages", "--hash", "sha256", ".", timeout_s=600)
    temporary = debs / "Packages.new"
    temporary.write_text(text)
    temporary.replace(debs / "Packages")
