"""An inventory as the checks see it, and how its problems name hosts and values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.vstack.cluster.plugins.module_utils.disks import Disk, normalise

GROUPS = ("postgres", "etcd", "metadata", "storage", "uploader", "client", "monitoring", "backup")
# Variables that the checks look at; nothing else of a host is read.
VARIABLES = (
    "vstack_address",
    "vstack_cluster_key",
    "vstack_disks",
    "vstack_disks_wipe",
    "vstack_failure_domain",
    "vstack_grafana_admin_password",
    "vstack_postgres_mode",
    "vstack_postgres_password",
    "vstack_postgres_replication_password",
    "vstack_postgres_superuser_password",
)
MAX_NAMES = 5


@dataclass(frozen=True)
class Site:
    """`groups` as in Ansible, `variables` of each host: only those of VARIABLES, and only what has a value."""

    groups: Mapping[str, Sequence[str]]
    variables: Mapping[str, Mapping[str, object]]

    def members(self, group: str) -> list[str]:
        return list(self.groups.get(group, ()))

    def hosts(self) -> list[str]:
        """All hosts that run something of V-Stack, each once."""
        return list(dict.fromkeys(host for group in GROUPS for host in self.members(group)))

    def value(self, host: str, name: str) -> object:
        """None where the host has no such variable."""
        return self.variables.get(host, {}).get(name)

    def common(self, name: str, default: str) -> tuple[object, list[str]]:
        """The value that all hosts share; if they don't, the default and a sentence."""
        values = [default if value is None else value for value in (self.value(host, name) for host in self.hosts())]
        found = list(dict.fromkeys(shown(value) for value in values))
        if len(found) > 1:
            where = "set it once, in group_vars/all/main.yml"
            return default, [f"`{name}` differs between hosts ({named(found)}): {where}"]
        return next(iter(values), default), []

    def disks(self, host: str) -> list[Disk]:
        """The disks of a storage host that are written correctly."""
        entries = self.value(host, "vstack_disks")
        return [] if entries is None else normalise(entries)[0]


def named(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def shown(value: object) -> str:
    """A value of an inventory in a sentence, never long."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
