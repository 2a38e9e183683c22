"""Filter `vstack.cluster.disks`; what it does is in module_utils/disks.py."""

from __future__ import annotations

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.vstack.cluster.plugins.module_utils.disks import normalise


def disks(entries: object) -> list[dict[str, object]]:
    """`vstack_disks` of one host with everything filled in; an error names every mistake."""
    found, problems = normalise(entries)
    if problems:
        raise AnsibleFilterError("; ".join(problems))
    return [disk.as_dict() for disk in found]


class FilterModule:
    """Found by Ansible under this name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        return {"disks": disks}
