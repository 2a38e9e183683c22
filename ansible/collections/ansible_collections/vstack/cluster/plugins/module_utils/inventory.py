"""Whether an inventory describes a cluster that can work: all that can be said without asking a host. Pure.

Each problem is one sentence that says what to do, and stands there once however many hosts have it. No sentence holds
a secret.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Sequence

from ansible_collections.vstack.cluster.plugins.module_utils.disks import PLACEHOLDER, normalise
from ansible_collections.vstack.cluster.plugins.module_utils.site import Site, named, shown

REPLICAS = 3
MIN_KEY_CHARACTERS = 32
MIN_PASSWORD_CHARACTERS = 12
MODES = ("single", "patroni")
FAILURE_DOMAINS = ("host", "disk")
# What listens on the hosts of a group besides the storage processes, whose ports are the disks'.
SERVICE_PORTS = {
    "postgres": {5432: "Postgres", 8008: "Patroni", 9187: "the Postgres exporter"},
    "etcd": {2379: "etcd", 2380: "etcd"},
    "metadata": {8080: "the metadata service"},
    "uploader": {8084: "the uploader"},
    "client": {8888: "the client"},
    "monitoring": {3000: "Grafana", 9090: "Prometheus", 9093: "Alertmanager", 9094: "Alertmanager"},
    "storage": {9100: "the node exporter"},
}
SECRETS_FILE = "group_vars/all/vault.yml"

_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def check(site: Site, play_hosts: Sequence[str]) -> list[str]:
    """What is wrong with the inventory. `play_hosts` are those that this run may touch."""
    mode, mode_problems = _choice(site, "vstack_postgres_mode", MODES)
    return [
        *mode_problems,
        *_groups(site, mode),
        *_secrets(site, mode),
        *_addresses(site),
        *_disks(site),
        *_failure_domains(site),
        *_node_ids(site),
        *_ports(site),
        *_wipe(site, play_hosts),
    ]


def _choice(site: Site, name: str, choices: Sequence[str]) -> tuple[str, list[str]]:
    """A variable that must be the same everywhere; the first choice is its default."""
    value, problems = site.common(name, choices[0])
    if value in choices:
        return str(value), problems
    return choices[0], [*problems, f"`{name}` is {shown(value)}: set it to {' or '.join(choices)}"]


def _groups(site: Site, mode: str) -> Iterator[str]:
    for group, needed in (("postgres", "a database"), ("metadata", "a metadata service"), ("uploader", "an uploader")):
        if not site.members(group):
            yield f"group {group} has no host, and a cluster needs {needed}: put at least one host into it"
    if len(site.members("backup")) > 1:
        yield f"group backup has {len(site.members('backup'))} hosts, and there is one repository: leave one host in it"
    postgres, etcd = site.members("postgres"), site.members("etcd")
    if mode == "single":
        if len(postgres) > 1:
            yield (
                f"group postgres has {len(postgres)} hosts, and only Patroni keeps several databases alike: leave one "
                f"host, or set `vstack_postgres_mode: patroni` and put three hosts into group etcd"
            )
        if etcd:
            yield (
                "group etcd has hosts, which only Patroni uses: set `vstack_postgres_mode: patroni`, or empty the group"
            )
        return
    if len(postgres) < 2:
        yield f"Patroni needs at least two hosts in group postgres, and there are {len(postgres)}: add hosts to it"
    if len(etcd) < 3 or len(etcd) % 2 == 0:
        yield (
            f"Patroni needs three etcd hosts (or another odd number above), and group etcd has {len(etcd)}: a majority "
            f"of them must survive the loss of one, so put three hosts into it"
        )


def _secrets(site: Site, mode: str) -> Iterator[str]:
    yield from _secret(site, "vstack_cluster_key", ("metadata", "storage"), MIN_KEY_CHARACTERS)
    passwords: dict[str, tuple[str, ...]] = {"vstack_postgres_password": ("postgres", "metadata")}
    if mode == "patroni":
        passwords["vstack_postgres_superuser_password"] = ("postgres",)
        passwords["vstack_postgres_replication_password"] = ("postgres",)
    passwords["vstack_grafana_admin_password"] = ("monitoring",)
    for name, groups in passwords.items():
        yield from _secret(site, name, groups, MIN_PASSWORD_CHARACTERS)


def _secret(site: Site, name: str, groups: Sequence[str], characters: int) -> Iterator[str]:
    hosts = list(dict.fromkeys(host for group in groups for host in site.members(group)))
    values = {host: site.value(host, name) for host in hosts}
    remedy = f"put one of at least {characters} characters into {SECRETS_FILE}, e.g. from `openssl rand -hex 32`"
    missing = [host for host, value in values.items() if value is None or value == ""]
    if missing:
        where = "" if len(missing) == len(hosts) else f" for {named(missing)}"
        yield f"`{name}` is missing{where}: {remedy}"
        return
    if len({repr(value) for value in values.values()}) > 1:
        yield f"`{name}` differs between hosts: set it once, in {SECRETS_FILE}"
        return
    value = next(iter(values.values()), None)
    if value is None:
        return
    if not isinstance(value, str):
        yield f"`{name}` is no text: write it in quotes in {SECRETS_FILE}"
    elif PLACEHOLDER.lower() in value.lower():
        yield f"`{name}` is still the example's: {remedy}"
    elif len(value) < characters:
        yield f"`{name}` has only {len(value)} characters: {remedy}"
    elif not value.isprintable() or value != value.strip():
        yield f"`{name}` begins or ends with a space, or holds a line break: {remedy}"


def _addresses(site: Site) -> Iterator[str]:
    hosts = site.hosts()
    first: dict[str, str] = {}
    for host in hosts:
        address = site.value(host, "vstack_address")
        if address is None or address == "":
            yield (
                f"{host} has no address: set `ansible_host` for it, or `vstack_address` where the other hosts reach it "
                f"at another one"
            )
            continue
        known = _canonical(address)
        if known is None:
            yield f"{host} has the address {shown(address)}: give an IP address or a host name, without port or scheme"
            continue
        if len(hosts) > 1 and _is_own(known):
            yield (
                f"{host} has the address {address}, which only it can reach: set `vstack_address` to one that the "
                f"other hosts reach"
            )
            continue
        other = first.setdefault(known, host)
        if other != host:
            yield (
                f"{other} and {host} have the same address {address}: they are one host, so list it once and put that "
                f"name into all its groups"
            )


def _canonical(address: object) -> str | None:
    """One spelling for each address or host name; None for what is neither."""
    if not isinstance(address, str):
        return None
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        # A last label of digits only is a mistyped IP address and never a name.
        plausible = _HOST_NAME.fullmatch(address) and not address.rpartition(".")[2].isdigit()
        return address.lower() if plausible else None


def _is_own(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost"
    return parsed.is_loopback or parsed.is_unspecified


def _disks(site: Site) -> Iterator[str]:
    storage = site.members("storage")
    for host in site.hosts():
        entries = site.value(host, "vstack_disks")
        if host not in storage:
            if entries:
                yield f"{host} has `vstack_disks` and is not in group storage: put it there, or drop the variable"
        elif not entries:
            yield f"{host} is in group storage and has no disks: list them in `vstack_disks` for it"
        else:
            yield from (f"{host}: {problem}" for problem in normalise(entries)[1])


def _failure_domains(site: Site) -> Iterator[str]:
    domain, problems = _choice(site, "vstack_failure_domain", FAILURE_DOMAINS)
    yield from problems
    storage = site.members("storage")
    if domain == "host" and len(storage) < REPLICAS:
        yield (
            f"group storage has {_count(len(storage), 'host')}, and the {REPLICAS} copies of a chunk lie on {REPLICAS} "
            f"different hosts: add storage hosts, or set `vstack_failure_domain: disk` on a site of one host with "
            f"{REPLICAS} disks"
        )
    if domain == "disk":
        disks = sum(len(entries) for host in storage if isinstance(entries := site.value(host, "vstack_disks"), list))
        if len(storage) >= REPLICAS:
            yield (
                f"`vstack_failure_domain: disk` lets all copies of a chunk lie on one host, and group storage has "
                f"{len(storage)} hosts: remove it, so that the copies lie on different hosts"
            )
        elif disks < REPLICAS:
            yield (
                f"group storage has {_count(disks, 'disk')}, and the {REPLICAS} copies of a chunk lie on {REPLICAS} "
                f"different disks: add disks to `vstack_disks`"
            )


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _node_ids(site: Site) -> Iterator[str]:
    first: dict[str, str] = {}
    for host in site.members("storage"):
        for disk in site.disks(host):
            if disk.node_id is None:
                continue
            here = f"disk {disk.name} of {host}"
            other = first.setdefault(disk.node_id, here)
            if other != here:
                yield (
                    f"{other} and {here} have the same node_id {disk.node_id}: every disk of the cluster needs its "
                    f"own, so change one, or leave node_id out"
                )


def _ports(site: Site) -> Iterator[str]:
    for host in site.members("storage"):
        taken = {
            port: service
            for group, services in SERVICE_PORTS.items()
            if host in site.members(group)
            for port, service in services.items()
        }
        for disk in site.disks(host):
            if disk.port in taken:
                yield (
                    f"{host}: disk {disk.name} has port {disk.port}, which {taken[disk.port]} has on this host: "
                    f"give the disk another `port`"
                )


def _wipe(site: Site, play_hosts: Sequence[str]) -> Iterator[str]:
    wipe = next((value for host in play_hosts if (value := site.value(host, "vstack_disks_wipe")) is not None), None)
    if wipe is None:
        return
    if not isinstance(wipe, list):
        example = json.dumps({"vstack_disks_wipe": [shown(wipe)]})
        yield f"`vstack_disks_wipe` must be a list of devices: give it as -e '{example}'"
        return
    for entry in wipe:
        owners = [host for host in site.members("storage") if entry in [disk.device for disk in site.disks(host)]]
        reached = [host for host in owners if host in play_hosts]
        if not owners:
            yield f"`vstack_disks_wipe` names {shown(entry)}, which is no device of any vstack_disks: correct the path"
        elif len(reached) > 1:
            yield (
                f"`vstack_disks_wipe` names {shown(entry)}, which {named(reached)} all have: name the one host that is "
                f"meant with --limit"
            )
