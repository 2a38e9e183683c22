"""Which V-Stack services a host runs, and where they answer. Pure: no Ansible in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .addresses import http_url
from .disks import normalise

PORTS = {"metadata": 8080, "uploader": 8084, "client": 8888}
"""Of the services that a host runs once, as in the package's settings."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process: the group that asked for it, its unit, and its base URL."""

    group: str
    unit: str
    url: str

    def as_dict(self) -> dict[str, object]:
        return dict(asdict(self))


def services(groups: Iterable[str], address: str, disks: object) -> tuple[list[Service], list[str]]:
    """The services of a host in `groups` with `vstack_disks` = `disks`, and what is wrong with the disks.

    In the order in which they are restarted: metadata, then storage by disk, then uploader and client.
    """
    groups = set(groups)
    found, problems = normalise(disks if "storage" in groups else [])
    storage = [Service(group="storage", unit=disk.unit, url=http_url(address, disk.port)) for disk in found]
    single = {
        group: Service(group=group, unit=f"vstack-{group}.service", url=http_url(address, port))
        for group, port in PORTS.items()
        if group in groups
    }
    first = [single.pop("metadata")] if "metadata" in single else []
    return [*first, *storage, *single.values()], problems
