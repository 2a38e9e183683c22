"""What is wrong with an inventory stops site.yml in its first task, in a sentence, and nothing has been touched."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.lab.site.harness import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

SECRETS: Final = "group_vars/all/main.yml"
HOSTS: Final = "hosts.yml"

# What is written into the lab's inventory: the file, a pattern, what stands there instead, and the sentence.
WRONG: Final = {
    "a missing secret": (
        SECRETS,
        r"vstack_cluster_key: .*\n",
        "",
        "`vstack_cluster_key` is missing: put one of at least ",
    ),
    "the same disk twice": (
        HOSTS,
        r"vstack-lab-d2",
        "vstack-lab-d1",
        "store1: disks d1 and d2 are the same device /dev/disk/by-id/vstack-lab-d1: name each device once",
    ),
    "two storage hosts for three copies": (
        HOSTS,
        r"    store[345]:\n",
        "",
        "group storage has 2 hosts, and the 3 copies of a chunk lie on 3 different hosts: add storage hosts",
    ),
    "hosts with one node id": (
        HOSTS,
        r"\{name: d1,",
        "{name: d1, node_id: node-1,",
        "disk d1 of store1 and disk d1 of store2 have the same node_id node-1: every disk of the cluster needs its own",
    ),
}


def with_mistake(site: Site, directory: Path, file: str, pattern: str, instead: str) -> Site:
    """The site by another inventory: the lab's, with one change."""
    inventory = directory / "inventory"
    shutil.copytree(site.inventory, inventory)
    text, count = re.subn(pattern, instead, (inventory / file).read_text())
    assert count > 0
    (inventory / file).write_text(text)
    return replace(site, inventory=inventory)


def require_refusal(site: Site, sentence: str) -> None:
    run = site.playbook("site", check=False)
    assert run.status != 0
    assert sentence in re.sub(r"\s+", " ", run.output), run.output
    assert set(run.changed.values()) == {0}, run.output
    assert run.output.count("\nTASK [") == 1, run.output


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_inventory_is_refused(site: Site, tmp_path: Path, name: str) -> None:
    file, pattern, instead, sentence = WRONG[name]
    require_refusal(with_mistake(site, tmp_path, file, pattern, instead), sentence)


def test_a_device_that_holds_data_is_refused(site: Site, tmp_path: Path) -> None:
    site.up("store9:2:100")
    try:
        site.lab("shell", "store9", "mkfs.ext4", "-q", "-L", "photos", "/dev/disk/by-id/vstack-lab-d2")
        before = site.lab("shell", "store9", "sha256sum", "/dev/disk/by-id/vstack-lab-d2")
        wrong = with_mistake(site, tmp_path, HOSTS, r"    store5:\n", "    store5:\n    store9:\n")
        holds = "/dev/disk/by-id/vstack-lab-d2 holds data (ext4 with label photos) and is left alone"
        require_refusal(wrong, f"store9: disk d2: {holds}: name another device")
        assert site.lab("shell", "store9", "sha256sum", "/dev/disk/by-id/vstack-lab-d2") == before
    finally:
        site.down("store9")
