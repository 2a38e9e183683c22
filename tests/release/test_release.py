"""scripts/release: what it packs installs without a package registry, under the version that was asked for."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vstack import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VERSION = f"{__version__}+test.1"
ATTEMPTS = 3


def release(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/release", "--output", output, *arguments], text=True, check=False, capture_output=True
    )


def tree() -> str:
    """What a release is packed from: the commit, and all that differs from it."""
    return run("git", "-C", ROOT, "log", "-1", "--format=%H") + run("git", "-C", ROOT, "diff", "HEAD")


def run(*command: str | Path) -> str:
    """Without the user's own settings of pip: those may name an index or a folder of wheels."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(command, env=environment, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = release(tmp_path_factory.mktemp("dist"), "--label", "test.1")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    return directory / f"vstack-{VERSION}"


@pytest.mark.xdist_group("release")
def test_it_installs_offline_and_bears_its_version(unpacked: Path, tmp_path: Path) -> None:
    assert (unpacked / "VERSION").read_text() == f"{VERSION}\n"
    python = tmp_path / "bin/python"
    run(sys.executable, "-m", "venv", tmp_path)
    offline = (python, "-m", "pip", "install", "--no-index", "--find-links", unpacked / "wheels")
    run(*offline, "--require-hashes", "--requirement", unpacked / "requirements.lock")
    run(python, "-m", "pip", "check")
    assert run(tmp_path / "bin/vstack", "--version") == f"vstack {VERSION}\n"


@pytest.mark.xdist_group("release")
@pytest.mark.parametrize("python", ["cp311", "cp312", "cp313"])
def test_every_python_has_a_wheel_of_every_requirement(unpacked: Path, python: str) -> None:
    fits = re.compile(rf"-({python}-{python}|cp3\d+-abi3|py3|py2\.py3)-[^/]+\.whl$")
    wheels = {
        name.name.partition("-")[0].lower().replace("_", "-")
        for name in unpacked.glob("wheels/*")
        if fits.search(name.name)
    }
    lock = (unpacked / "requirements.lock").read_text()
    required = {
        found[1]
        for found in re.finditer(r"^([\w.-]+)==(.*)$", lock, re.MULTILINE)
        if "sys_platform == 'win32'" not in found[2]
    }
    assert required
    assert required <= wheels


@pytest.mark.xdist_group("release")
def test_the_same_tree_packs_to_the_same_bytes(tmp_path: Path) -> None:
    for attempt in range(ATTEMPTS):
        before = tree()
        outputs = [tmp_path / f"{attempt}-{name}" for name in ("one", "two")]
        for output in outputs:
            done = release(output, "--label", "test.1")
            assert done.returncode == 0, done.stderr
        if tree() == before:  # nobody worked on it meanwhile
            one, two = (sorted(output.iterdir()) for output in outputs)
            assert [file.name for file in one] == [f".vstack-{VERSION}.made", f"vstack-{VERSION}.tar.gz"]
            assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
            return
    pytest.fail("the checkout changed during every attempt")


@pytest.mark.xdist_group("release")
def test_a_release_is_packed_again_only_when_the_tree_has_changed(tmp_path: Path) -> None:
    for _ in range(ATTEMPTS):
        before = tree()
        release(tmp_path, "--label", "test.2")
        archive = tmp_path / f"vstack-{__version__}+test.2.tar.gz"
        packed = archive.stat()
        again = release(tmp_path, "--label", "test.2")
        assert again.stdout == f"{archive}\n"
        if tree() != before:  # somebody worked on it meanwhile
            continue
        assert archive.stat().st_ino == packed.st_ino
        (tmp_path / f".vstack-{__version__}+test.2.made").write_text("of another tree\n")
        release(tmp_path, "--label", "test.2")
        assert archive.stat().st_ino != packed.st_ino
        return
    pytest.fail("the checkout changed during every attempt")


@pytest.mark.xdist_group("release")
@pytest.mark.parametrize("label", ["Next", "a_b", "a..b", "1+2", "../up"])
def test_a_label_that_python_would_rewrite_is_refused(tmp_path: Path, label: str) -> None:
    done = release(tmp_path, "--label", label)
    assert done.returncode == 1
    assert "A label has" in done.stderr
    assert list(tmp_path.iterdir()) == []
