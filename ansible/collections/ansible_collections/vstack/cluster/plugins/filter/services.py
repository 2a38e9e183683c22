"""Filter `vstack.cluster.services`; what it does is in module_utils/services.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ansible.errors import AnsibleFilterError
from ansible_collections.vstack.cluster.plugins.module_utils.services import services as services_of


def services(groups: Iterable[str], address: str, disks: object) -> list[dict[str, object]]:
    """What a host in these groups runs: `group`, `unit` and `url` of each; an error names all mistakes in the disks."""
    found, problems = services_of(groups, address, disks)
    if problems:
        raise AnsibleFilterError("; ".join(problems))
    return [service.as_dict() for service in found]


class FilterModule:
    """Found by Ansible under this name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        return {"services": services}
