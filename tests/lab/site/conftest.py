"""One site for all of its tests: eight blank hosts, set up once by the playbooks, and healthy before each test."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.site.harness import ROOT, Run, Site

STORAGE_HOSTS = tuple(f"store{number}" for number in range(1, 6))
DISKS = 2
DISK_MB = 4000
HOSTS = ("db1", "meta1", "meta2", *(f"{host}:{DISKS}:{DISK_MB}" for host in STORAGE_HOSTS))
NODES = len(STORAGE_HOSTS) * DISKS


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s of moving pictures and sound at about 1.5 Mbps."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    inputs = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=20 -f lavfi -i sine=duration=20"
    codecs = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 50 -b:v 1500k -c:a aac"
    subprocess.run(["ffmpeg", "-v", "error", "-y", *inputs.split(), *codecs.split(), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Run]]:
    """The site, and the run of site.yml that made it from blank hosts."""
    site = Site("trial", ROOT / "ansible/inventories/lab", tmp_path_factory.mktemp("site"))
    site.lab("cache", timeout_s=1800)
    site.lab("down")
    try:
        started_s = time.monotonic()
        site.up(*HOSTS)
        print(f"\n{len(HOSTS)} hosts booted in {time.monotonic() - started_s:.0f} s")
        yield site, site.playbook("site")
    finally:
        site.lab("down")


@pytest.fixture
def site(first_run: tuple[Site, Run]) -> Site:
    """The site, with every storage node healthy."""
    site, _ = first_run
    site.until_healthy(NODES)
    return site
