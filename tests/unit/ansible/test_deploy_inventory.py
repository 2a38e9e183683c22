"""Wrong inventories and the sentence for each; right ones, and none."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ansible.collection import inventory, site

KEY = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct-horse-battery"
SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_name("inventory_sentences.toml").read_text())

Change = Callable[[dict[str, list[str]], dict[str, dict[str, Any]]], object]


def _disks(host: str, count: int = 2) -> list[dict[str, object]]:
    return [{"name": f"d{n}", "device": f"/dev/disk/by-id/{host}-{n}"} for n in range(1, count + 1)]


def _separate() -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Groups and variables of a site with a host for each service."""
    groups = {
        "postgres": ["db1"],
        "metadata": ["meta1", "meta2"],
        "storage": ["s1", "s2", "s3", "s4", "s5"],
        "uploader": ["up1"],
        "client": ["play1"],
        "monitoring": ["mon1"],
    }
    hosts = [host for members in groups.values() for host in members]
    variables: dict[str, dict[str, Any]] = {
        host: {
            "vstack_address": f"192.0.2.{number}",
            "vstack_cluster_key": KEY,
            "vstack_postgres_password": PASSWORD,
            "vstack_grafana_admin_password": PASSWORD,
        }
        for number, host in enumerate(hosts, start=1)
    }
    for host in groups["storage"]:
        variables[host]["vstack_disks"] = _disks(host)
    return groups, variables


def _problems(change: Change | None = None, play_hosts: list[str] | None = None) -> list[str]:
    groups, variables = copy.deepcopy(_separate())
    if change is not None:
        change(groups, variables)
    described = site.Site(groups=groups, variables=variables)
    found: list[str] = inventory.check(described, described.hosts() if play_hosts is None else play_hosts)
    return found


def _everywhere(**values: object) -> Change:
    return lambda _, variables: [own.update(values) for own in variables.values()]


def _on(host: str, **values: object) -> Change:
    return lambda _, variables: variables.setdefault(host, {}).update(values)


def _group(**members: list[str]) -> Change:
    return lambda groups, _: groups.update(members)


def _patroni(groups: dict[str, list[str]], variables: dict[str, dict[str, Any]]) -> None:
    groups.update(postgres=["db1", "up1"], etcd=["db1", "meta1", "meta2"])
    _everywhere(
        vstack_postgres_mode="patroni",
        vstack_postgres_superuser_password=PASSWORD,
        vstack_postgres_replication_password=PASSWORD,
    )(groups, variables)


def _without(name: str, *hosts: str) -> Change:
    return lambda _, variables: [own.pop(name, None) for host, own in variables.items() if not hosts or host in hosts]


def _both(*changes: Change) -> Change:
    return lambda groups, variables: [change(groups, variables) for change in changes]


def _one_host(count: int) -> Change:
    def change(groups: dict[str, list[str]], variables: dict[str, dict[str, Any]]) -> None:
        for group in groups:
            groups[group] = ["s1"]
        variables["s1"] |= {"vstack_disks": _disks("s1", count), "vstack_failure_domain": "disk"}

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="separate hosts"),
        pytest.param(_one_host(3), id="one host"),
        pytest.param(_both(_one_host(3), _on("s1", vstack_address="127.0.0.1")), id="one host on loopback"),
        pytest.param(_patroni, id="patroni"),
        pytest.param(_both(_group(client=[], monitoring=[]), _without("vstack_grafana_admin_password")), id="smallest"),
        pytest.param(_on("s1", vstack_address="2001:db8::1"), id="IPv6"),
        pytest.param(_on("s1", vstack_address="s1.example.org"), id="host name"),
        pytest.param(_on("other", vstack_address="192.0.2.1"), id="a host that V-Stack does not use"),
        pytest.param(
            _on("s1", vstack_disks=[{"name": "d1", "device": "/dev/x", "port": 8084}]), id="port of no one here"
        ),
    ],
)
def test_a_right_inventory_has_no_problems(change: Change | None) -> None:
    assert _problems(change) == []


WRONG: dict[str, Change] = {
    "no cluster key": _without("vstack_cluster_key"),
    "empty cluster key": _everywhere(vstack_cluster_key=""),
    "cluster key missing on one host": _without("vstack_cluster_key", "s2", "db1"),
    "short cluster key": _everywhere(vstack_cluster_key="x" * 31),
    "cluster key of the example": _everywhere(vstack_cluster_key="CHANGE-ME to something that is long enough"),
    "two cluster keys": _on("s3", vstack_cluster_key=KEY + "f"),
    "cluster key is a number": _everywhere(vstack_cluster_key=10**40),
    "cluster key with a line break": _everywhere(vstack_cluster_key=KEY + "\n"),
    "no database password": _without("vstack_postgres_password"),
    "short database password": _everywhere(vstack_postgres_password="short"),
    "no Grafana password": _without("vstack_grafana_admin_password"),
    "no superuser password for Patroni": _both(_patroni, _without("vstack_postgres_superuser_password")),
    "no replication password for Patroni": _both(_patroni, _without("vstack_postgres_replication_password")),
    "no database": _group(postgres=[]),
    "no metadata service": _group(metadata=[]),
    "no uploader": _group(uploader=[]),
    "two backup hosts": _group(backup=["up1", "mon1"]),
    "two databases without Patroni": _group(postgres=["db1", "up1"]),
    "etcd without Patroni": _group(etcd=["db1"]),
    "Patroni with one database": _both(_patroni, _group(postgres=["db1"])),
    "an even number of etcd hosts": _both(_patroni, _group(etcd=["db1", "meta1", "meta2", "up1"])),
    "one etcd host": _both(_patroni, _group(etcd=["db1"])),
    "unknown Postgres mode": _everywhere(vstack_postgres_mode="cluster"),
    "two storage hosts": _group(storage=["s1", "s2"]),
    "one host with two disks": _one_host(2),
    "failure domain disk with many hosts": _everywhere(vstack_failure_domain="disk"),
    "unknown failure domain": _everywhere(vstack_failure_domain="rack"),
    "two failure domains": _on("s1", vstack_failure_domain="disk"),
    "storage host without disks": _without("vstack_disks", "s1"),
    "disks on another host": _on("db1", vstack_disks=_disks("db1")),
    "one device twice": _on("s1", vstack_disks=[*_disks("s1"), {"name": "d3", "device": "/dev/disk/by-id/s1-1"}]),
    "one node id twice": _both(
        _on("s1", vstack_disks=[_disks("s1")[0] | {"node_id": "n1"}]),
        _on("s2", vstack_disks=[*_disks("s2", 1), _disks("s2")[1] | {"node_id": "n1"}]),
    ),
    "port of the uploader": _both(_group(uploader=["s1"]), _on("s1", vstack_disks=[_disks("s1")[0] | {"port": 8084}])),
    "no address": _without("vstack_address", "s4"),
    "one address twice": _on("s4", vstack_address="192.0.2.1"),
    "one IPv6 address twice": _both(_on("s4", vstack_address="2001:db8::1"), _on("s5", vstack_address="2001:DB8:0::1")),
    "address with a port": _on("s4", vstack_address="http://192.0.2.200:8081"),
    "mistyped address": _on("s4", vstack_address="192.0.2.300"),
    "loopback address": _on("s4", vstack_address="127.0.0.1"),
    "wipe is no list": _everywhere(vstack_disks_wipe="/dev/disk/by-id/s1-1"),
    "wipe names no device": _everywhere(vstack_disks_wipe=["/dev/disk/by-id/s1-9"]),
    "wipe names devices of two hosts": _both(
        _on("s1", vstack_disks=[{"name": "d1", "device": "/dev/sdb"}]),
        _on("s2", vstack_disks=[{"name": "d1", "device": "/dev/sdb"}]),
        _everywhere(vstack_disks_wipe=["/dev/sdb"]),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_inventory_has_one_problem(case: str) -> None:
    assert _problems(WRONG[case]) == [SENTENCES[case]]


def test_each_sentence_has_an_inventory() -> None:
    assert WRONG.keys() == SENTENCES.keys()


def test_a_limit_says_which_host_is_to_lose_its_disk() -> None:
    change = _both(
        _on("s1", vstack_disks=[{"name": "d1", "device": "/dev/sdb"}]),
        _on("s2", vstack_disks=[{"name": "d1", "device": "/dev/sdb"}]),
        _everywhere(vstack_disks_wipe=["/dev/sdb"]),
    )
    assert _problems(change, play_hosts=["s1"]) == []


def test_all_problems_are_reported_at_once() -> None:
    change = _both(_without("vstack_cluster_key"), _group(storage=["s1"]), _without("vstack_address", "s1"))
    assert len(_problems(change)) == 3


def test_an_empty_inventory_is_told_what_it_needs() -> None:
    problems = inventory.check(site.Site(groups={"all": []}, variables={}), [])
    assert [problem.split(" has ")[0] for problem in problems] == [
        "group postgres",
        "group metadata",
        "group uploader",
        "group storage",
    ]


def test_no_sentence_holds_a_secret() -> None:
    secret = "\ttop-secret"
    names = [name for name in site.VARIABLES if name.endswith(("_key", "_password"))]
    problems = _problems(_both(_patroni, _everywhere(**dict.fromkeys(names, secret))))
    assert len(problems) == len(names)
    assert not [problem for problem in problems if "secret" in problem]


def test_many_hosts_are_not_all_named() -> None:
    assert site.named(f"h{n}" for n in range(8)) == "h0, h1, h2, h3, h4 and 3 more"
