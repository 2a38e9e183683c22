"""The database's hosts die: one of three under load, one for good, and all at once, with only the backup left."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.site.conftest import DISK_MB, STORAGE_HOSTS
from tests.lab.site.harness import ROOT, Site, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

DATABASE_HOSTS = ("db1", "db2", "db3")
NODES = len(STORAGE_HOSTS)
INVENTORY = ROOT / "ansible/inventories/lab-ha"


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with Patroni, made by the playbooks from blank hosts."""
    site = Site("trial-ha", INVENTORY, tmp_path_factory.mktemp("site-ha"))
    site.lab("cache", timeout_s=1800)
    site.lab("down")
    try:
        site.up(*DATABASE_HOSTS, "meta1", "meta2", *(f"{host}:1:{2 * DISK_MB}" for host in STORAGE_HOSTS))
        run = site.playbook("site")
        print(f"\nsite.yml with Patroni: {run.seconds:.0f} s")
        yield site
    finally:
        site.lab("down")


@pytest.fixture
def available(set_up: Site) -> Site:
    """The site, with all of its database servers."""
    set_up.lab("power-on", *DATABASE_HOSTS)
    until(lambda: whole(set_up, "db1"), "three database servers")
    set_up.until_healthy(NODES)
    return set_up


def roles(site: Site, host: str) -> dict[str, str]:
    """The running database servers as Patroni on a host sees them: leader, sync_standby, replica."""
    command = ("shell", host, "patronictl", "-c", "/etc/patroni/config.yml", "list", "--format", "json")
    members = json.loads(site.lab(*command))
    return {one["Member"]: one["Role"].lower().replace(" ", "_") for one in members if one["State"] in RUNNING}


RUNNING = ("running", "streaming")


def whole(site: Site, host: str) -> bool:
    return sorted(roles(site, host).values()) == ["leader", "replica", "sync_standby"]


def require_playable(site: Site, videos: list[str], workdir: Path) -> None:
    """Each in full, byte for byte what the first of them is: they were all made from one file."""
    output, reference = workdir / "played.mp4", b""
    for video_id in videos:
        site.play(video_id, output)
        played = output.read_bytes()
        reference = reference or played
        assert played == reference, video_id


def test_the_primary_loses_its_power_under_load(available: Site, video: Path, tmp_path: Path) -> None:
    site = available
    primary = next(name for name, role in roles(site, "db1").items() if role == "leader")
    other = next(host for host in DATABASE_HOSTS if host != primary)
    with site.load(video) as load, site.writes() as writes:
        site.lab("power-cut", primary)
        until(lambda: "leader" in roles(site, other).values(), "another primary")
        stored = site.upload(video, "after the primary")
    print(f"{primary} lost its power; no write for {writes.longest_gap_s:.1f} s, {len(writes.times_s)} writes")
    load.require_no_failure()

    site.lab("power-on", primary)
    seconds = until(lambda: whole(site, other), f"{primary} follows the new primary")
    print(f"{primary} follows again {seconds:.0f} s after its ssh answered")
    assert roles(site, other)[primary] != "leader"
    require_playable(site, [*load.stored, stored], tmp_path)
    print(f"{len(load.stored) + 1} acknowledged videos played in full")


def test_a_database_host_is_replaced(available: Site, video: Path, tmp_path: Path) -> None:
    """A blank host with the name of one that was lost, of etcd too: site.yml is all that it takes."""
    site = available
    stored = site.upload(video, "before the host was lost")
    site.down("db2")
    site.up("db2")
    run = site.playbook("site")
    seconds = until(lambda: whole(site, "db2"), "the new host is one of three")
    print(f"\nsite.yml with a blank database host: {run.seconds:.0f} s; it follows {seconds:.0f} s later")
    site.until_healthy(NODES)

    # The others' votes are not enough for the new host to be idle: it is needed now.
    site.lab("power-cut", "db3")
    until(lambda: "leader" in roles(site, "db2").values(), "a primary, with the new host's vote")
    require_playable(site, [stored, site.upload(video, "after the host was replaced")], tmp_path)


def test_all_database_hosts_are_lost(available: Site, video: Path, tmp_path: Path) -> None:
    site = available
    before = [site.upload(video, f"in the backup {number}") for number in range(3)]
    site.playbook("backup")
    after = [site.upload(video, f"after the backup {number}") for number in range(3)]

    site.down(*DATABASE_HOSTS)
    site.up(*DATABASE_HOSTS)
    confirmed = f"-erestore_confirm={INVENTORY.name}"
    site.lab("power-cut", "store5")
    refused = site.playbook("restore", confirmed, check=False)
    assert refused.status != 0
    assert "These storage nodes do not answer" in refused.output
    assert site.nodes() == [], "the metadata service runs on a database that was not reconciled"

    restore = site.playbook("restore", confirmed, "-erestore_without_nodes=true")
    print(f"\nrestore.yml onto blank hosts: {refused.seconds:.0f} s until a storage host is missed")
    print(f"restore.yml without it: {restore.seconds:.0f} s")
    site.until_healthy(NODES - 1)
    require_playable(site, [*before, *after], tmp_path)

    site.lab("power-on", "store5")
    site.until_healthy(NODES)
    site.playbook("site")
    require_playable(site, [*before, *after, site.upload(video, "after the restore")], tmp_path)
    print(f"{len(before) + len(after)} acknowledged videos played in full, half of them newer than the backup")
