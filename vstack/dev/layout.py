"""The directory of a local cluster: its lock, its secrets, and the configuration file of every service.

    lock  cluster.key  postgres.password   config/*.toml   logs/*.log   run/*.pid
    postgres/   storage-1/ ... storage-N/   uploader/

Invariants: one supervisor per directory at a time; secrets and the files that name them are readable by the owner only.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from vstack.dev.ports import HOST, Ports, url
from vstack.dev.programs import Media
from vstack.errors import SettingsError
from vstack.units import MIB

SUPERBLOCK_BYTES: Final = 64 * MIB
"""Small, so that a node's first start takes moments; real hosts use the default of the settings."""

MIN_CAPACITY_BYTES: Final = 8 * SUPERBLOCK_BYTES
SECRET_BYTES: Final = 32
_FOLDERS: Final = ("config", "logs", "run")

TomlValue = str | int | tuple[str, ...]


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Create the directory with its folders and hold its lock. SettingsError if it cannot be used or is in use."""
    with contextlib.ExitStack() as stack:
        try:
            for folder in (directory, *(directory / name for name in _FOLDERS)):
                folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((directory / "lock").open("a+"))
        except OSError as error:
            raise SettingsError(f"cannot use the data directory {directory}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise SettingsError(
                f"{directory} is in use by the local cluster of process {lock.read().strip()}"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def ensure_secret(path: Path) -> str:
    """The secret in `path`, made when there is none yet."""
    if not path.exists():
        _write_private(path, secrets.token_hex(SECRET_BYTES))
    return path.read_text(encoding="utf-8").strip()


def write_configs(directory: Path, ports: Ports, database_url: str, media: Media) -> dict[str, tuple[str, Path]]:
    """Write every service's file; returns {service name: (kind, file)} in the order of `ports.named()`."""
    key_file = directory / "cluster.key"
    ensure_secret(key_file)
    metadata_urls = (url(ports.metadata),)
    files: dict[str, tuple[str, Path]] = {}
    for name, port in ports.named():
        kind = name.partition("-")[0]
        values: dict[str, TomlValue] = {"service": kind, "host": HOST, "port": port}
        match kind:
            case "metadata":
                values |= {"database_url": database_url, "cluster_key_file": str(key_file)}
            case "storage":
                values |= {
                    "data_dir": str(directory / name),
                    "cluster_key_file": str(key_file),
                    "metadata_urls": metadata_urls,
                    "public_url": url(port),
                    # Every node stands for a machine of its own, so that placement spreads as it would there.
                    "host_id": f"dev-host-{name.partition('-')[2]}",
                    "superblock_bytes": SUPERBLOCK_BYTES,
                    "capacity_bytes": _share_bytes(directory, directory / name, len(ports.storage)),
                }
            case "uploader":
                values |= {
                    "data_dir": str(directory / name),
                    "metadata_urls": metadata_urls,
                    "ffmpeg": media.ffmpeg,
                    "ffprobe": media.ffprobe,
                }
            case _:
                values |= {"metadata_urls": metadata_urls}
        path = directory / "config" / f"{name}.toml"
        _write_private(path, toml(values))
        files[name] = kind, path
    return files


def _share_bytes(directory: Path, node: Path, nodes: int) -> int:
    """What a node may fill: what it has, and its part of what is free on the disk that all of them share.

    Without a limit every node would count the whole disk as its own, and call itself full because of strangers' files.
    """
    kept = sum(file.stat().st_size for file in node.glob("*")) if node.exists() else 0
    return max(MIN_CAPACITY_BYTES, kept + shutil.disk_usage(directory).free // nodes)


def toml(values: Mapping[str, TomlValue]) -> str:
    """A flat TOML document. JSON's strings, integers and arrays of strings are TOML's too."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _write_private(path: Path, text: str) -> None:
    """Replace `path` atomically with a file that only its owner can read."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
