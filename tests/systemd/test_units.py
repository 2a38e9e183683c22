"""The unit files, as systemd itself sees them: they parse, are sealed off, and start what exists."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vstack import settings
from vstack.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
FILES = sorted(path.name for path in UNITS.iterdir() if path.is_file())
EXPOSURE_AT_MOST = 2.0
PROGRAM = "/opt/vstack/current/bin/vstack"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")


class Unit(configparser.RawConfigParser):
    """A unit file; of a setting that stands there several times the last one."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, delimiters="=", comment_prefixes="#", interpolation=None)
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read(UNITS / name)


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a host with our units, systemd's own, and every program that a unit starts."""
    root = tmp_path_factory.mktemp("host")
    shutil.copytree(UNITS, root / "etc/systemd/system")
    system = root / "usr/lib/systemd/system"
    system.parent.mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", system, symlinks=True)
    for program in (PROGRAM, "/usr/bin/install"):
        path = root / program.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return root


@needs_systemd
@pytest.mark.parametrize("name", FILES)
def test_systemd_has_nothing_to_remark(name: str, host: Path) -> None:
    result = run("systemd-analyze", "verify", "--man=no", f"--root={host}", instance(name))
    remarks = [line for line in result.stderr.splitlines() if "vstack" in line]
    assert (result.returncode, remarks) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_services_are_sealed_off(name: str) -> None:
    """At most 2.0 of 10; systemd-analyze counts the threshold in tenths."""
    tenths = round(EXPOSURE_AT_MOST * 10)
    path = UNITS / name
    result = run("systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", "--no-pager", path)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert result.returncode == 0, result.stdout
    assert float(exposure[1]) <= EXPOSURE_AT_MOST


@needs_systemd
def test_the_threshold_can_be_missed(tmp_path: Path) -> None:
    unit = tmp_path / "open.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit).returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_starts_is_a_command(name: str) -> None:
    program, *args = Unit(name)["Service"]["ExecStart"].split()
    assert program == PROGRAM
    options = build_parser().parse_args(args)
    if "config" in options:
        assert options.kind in settings.KINDS
        assert str(options.config).startswith("/etc/vstack/")


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "vstack-media@.service"])
def test_services_are_watched_and_come_back(name: str) -> None:
    unit = Unit(name)
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    assert service["WatchdogSec"] == "30s"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Unit"]["PartOf"] == "vstack.target"


@pytest.mark.parametrize("name", [name for name in FILES if "@" not in name and name.endswith((".service", ".socket"))])
def test_the_target_has_all_that_is_installed(name: str) -> None:
    assert Unit(name)["Install"]["WantedBy"] == "vstack.target"


def test_every_file_is_explained_or_named() -> None:
    """Nothing lies here that no role would install: units, and the two kinds of fragments."""
    directories = {path.name for path in UNITS.iterdir() if path.is_dir()}
    assert directories == {"sysusers.d", "tmpfiles.d", "vstack-.service.d"}
    assert {Path(name).suffix for name in FILES} == {".service", ".slice", ".socket", ".target"}


@needs_systemd
def test_users_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    result = run("systemd-sysusers", f"--root={tmp_path}", "--dry-run", UNITS / "sysusers.d/vstack.conf")
    assert result.returncode == 0, result.stderr
    for user in ("vstack", "vstack-media"):
        assert f"Creating user '{user}'" in result.stderr
    made = run("systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.d/vstack.conf")
    assert made.returncode == 0, made.stderr
    result = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", UNITS / "tmpfiles.d/vstack.conf")
    assert result.returncode == 0, result.stderr
    modes = {path: (tmp_path / path).stat().st_mode & 0o7777 for path in ("etc/vstack", "etc/vstack/credentials")}
    assert modes == {"etc/vstack": 0o750, "etc/vstack/credentials": 0o700}


def instance(name: str) -> str:
    """The name by which a file is loaded: of a template, one instance."""
    return name.replace("@.", "@d1.")
