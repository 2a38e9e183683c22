"""Releases come and go, host by host, while 20 clients play and 3 uploads run: nobody notices."""

import subprocess
import urllib.parse
from pathlib import Path

import pytest

from tests.lab.site.conftest import NODES
from tests.lab.site.harness import ROOT, Site
from vstack import __version__

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

LABEL = "next"


@pytest.fixture(scope="module")
def next_release() -> str:
    """Another release, which differs in nothing but its version."""
    subprocess.run([ROOT / "scripts/release", "--label", LABEL], check=True, stdout=subprocess.DEVNULL)
    return f"{__version__}+{LABEL}"


def test_an_upgrade_and_a_rollback_under_load(site: Site, video: Path, next_release: str) -> None:
    before = versions(site)
    with site.load(video) as load:
        upgrade = site.playbook("upgrade", f"-evstack_version={next_release}")
        assert versions(site) == {next_release}
        rollback = site.playbook("rollback")
        assert versions(site) == before
    print(f"upgrade {upgrade.seconds:.0f} s, rollback {rollback.seconds:.0f} s")
    load.require_no_failure()


def versions(site: Site) -> set[str]:
    """The releases that storage nodes and metadata services say they run."""
    nodes = site.nodes()
    assert len([node for node in nodes if node["status"] != "down"]) == NODES
    hosts = {urllib.parse.urlsplit(str(node["node_url"])).hostname for node in nodes}
    assert hosts
    links = {
        site.lab("shell", host, "readlink", "/opt/vstack/current").strip().rpartition("/")[2]
        for host in ("meta1", "meta2")
    }
    return links | {str(node["version"]) for node in nodes if node["status"] != "down"}
