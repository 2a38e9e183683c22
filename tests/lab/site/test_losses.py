"""Hosts come, go and die under load, and come back by themselves."""

from pathlib import Path

import pytest

from tests.lab.site.conftest import DISK_MB, DISKS, HOSTS, NODES
from tests.lab.site.harness import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]


def test_a_new_host_takes_new_chunks_under_load(site: Site, video: Path) -> None:
    inventory = site.workdir / "store6.yml"
    inventory.write_text("storage:\n  hosts:\n    store6:\n", encoding="utf-8")
    try:
        with site.load(video) as load:
            site.up(f"store6:{DISKS}:{DISK_MB}")
            run = site.playbook("add_node", "-eadd_node=store6", "-i", str(inventory))
            site.until_healthy(NODES + DISKS)
            address = site.address("store6")
            site.upload(video, "to the new host")
            for number in range(10):
                site.upload(video, f"to the new host {number}")
            mine = [node for node in site.nodes() if address in str(node["node_url"])]
        print(f"add_node: {run.seconds:.0f} s, chunks on the new host: {[node['chunk_count'] for node in mine]}")
        assert sum(int(str(node["chunk_count"])) for node in mine) > 0
        load.require_no_failure()
    finally:
        site.down("store6")


def test_a_storage_host_that_dies_is_not_missed(site: Site, video: Path) -> None:
    try:
        with site.load(video) as load:
            site.lab("power-cut", "store3")
            site.until_healthy(NODES - DISKS)
            site.upload(video, "without store3")
        load.require_no_failure()
    finally:
        site.lab("power-on", "store3")
    site.until_healthy(NODES)


@pytest.mark.parametrize("host", ["db1", "meta1", "meta2", "store1"])
def test_a_host_reboots(site: Site, video: Path, tmp_path: Path, host: str) -> None:
    before = site.upload(video, f"before {host}")
    site.lab("reboot", host)
    seconds = site.until_healthy(NODES)
    print(f"\n{host}: healthy again {seconds:.0f} s after ssh")
    site.play(before, tmp_path / "before.mp4")
    site.play(site.upload(video, f"after {host}"), tmp_path / "after.mp4")
    assert (tmp_path / "before.mp4").read_bytes() == (tmp_path / "after.mp4").read_bytes()


def test_the_power_of_the_whole_site_fails(site: Site, video: Path, tmp_path: Path) -> None:
    stored = [site.upload(video, f"kept {number}") for number in range(3)]
    hosts = [host.partition(":")[0] for host in HOSTS]
    site.lab("power-cut", *hosts)
    site.lab("power-on", *hosts, timeout_s=600)
    seconds = site.until_healthy(NODES)
    print(f"\nhealthy again {seconds:.0f} s after the last host answers")
    for video_id in stored:
        site.play(video_id, tmp_path / f"{video_id}.mp4")
    site.upload(video, "after the power failure")
