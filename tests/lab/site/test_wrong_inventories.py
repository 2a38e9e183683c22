"""What is wrong with an inventory stops site.yml in its first task, in a sentence, and nothing has been touched."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.lab.site.conftest import STORAGE_HOSTS
from tests.lab.site.harness import ROOT, Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

D1, D2 = ({"name": name, "device": f"/dev/disk/by-id/vstack-lab-{name}"} for name in ("d1", "d2"))
BOTH: Final = {"vstack_disks": [D1, D2]}
NODE_ID: Final = "store1-0a1b2c3d"

Hosts = Mapping[str, Mapping[str, object]]

WRONG: Final[dict[str, tuple[Hosts, Mapping[str, object], str]]] = {
    "a missing secret": ({}, {"vstack_cluster_key": ""}, "`vstack_cluster_key` is missing: put one of at least"),
    "the same disk twice": (
        {"store1": {"vstack_disks": [D1, D2 | {"device": D1["device"]}]}},
        {},
        "store1: disk d2 has the device of disk d1",
    ),
    "a device that holds data": (
        {"store1": {"vstack_disks": [D1, D2 | {"device": "/dev/disk/by-id/vstack-lab-foreign"}]}},
        {},
        "store1: /dev/disk/by-id/vstack-lab-foreign holds",
    ),
    "two storage hosts for three copies": (
        dict.fromkeys(STORAGE_HOSTS[2:], {}),
        {},
        "group storage has 2 hosts, and the 3 copies of a chunk lie on 3 different hosts: add storage hosts",
    ),
    "two hosts with one node id": (
        {host: {"vstack_disks": [D1 | {"node_id": NODE_ID}, D2]} for host in STORAGE_HOSTS[:2]},
        {},
        f"have the same node_id {NODE_ID}: every disk of the cluster needs its own",
    ),
}
