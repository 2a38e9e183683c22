"""Action `vstack.cluster.preflight`: the first task of every playbook, before anything is touched.

It hands the whole inventory to the inventory checks and the host's own answer to the host checks, and fails with all
their sentences. Problems of the inventory are reported by the first host of the play only. It changes nothing, runs in
check mode as in any other, and needs no Python on the host.
"""

from __future__ import annotations

from collections.abc import Mapping

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.vstack.cluster.plugins.module_utils import host_checks, inventory, probe
from ansible_collections.vstack.cluster.plugins.module_utils.disks import Disk
from ansible_collections.vstack.cluster.plugins.module_utils.site import VARIABLES, Site


class ActionModule(ActionBase):
    """Found by Ansible under this name."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, object] | None = None) -> dict[str, object]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        here = str(variables["inventory_hostname"])
        play_hosts = [str(host) for host in variables["ansible_play_hosts_all"]]
        groups = {str(name): [str(host) for host in hosts] for name, hosts in variables["groups"].items()}
        hosts, problems = _read(variables["hostvars"], groups)
        site = Site(groups=groups, variables=hosts)
        problems += inventory.check(site, play_hosts)
        if site.value(here, "vstack_disks_wipe") is not None and "vstack_disks_wipe" not in load_extra_vars(
            self._loader
        ):
            problems.append(
                "`vstack_disks_wipe` stands in the inventory, where it would wipe again and again: remove it there, "
                "and give it once with -e"
            )
        if here != play_hosts[0]:
            problems = []
        problems += self._host_problems(site, here, unreachable_fails=not problems)
        if problems:
            # Ansible shows `msg` twice, so the sentences stand beside it; with a line break at the end they are shown
            # as they are, and not as one quoted string.
            result.update(failed=True, msg=_summary(problems), problems="\n".join([*problems, ""]))
        return result

    def _host_problems(self, site: Site, here: str, *, unreachable_fails: bool) -> list[str]:
        """What is wrong with this host. An unreachable one is Ansible's matter, unless there is more to say."""
        if here not in site.hosts():
            return []
        disks = site.disks(here) if here in site.members("storage") else []
        try:
            host = self._ask(disks)
        except AnsibleError as error:
            if unreachable_fails and isinstance(error, AnsibleConnectionFailure):
                raise
            return [f"{here}: cannot be looked at: {' '.join(str(error).split())}"]
        wipe = site.value(here, "vstack_disks_wipe")
        return host_checks.check(here, host, disks, wipe if isinstance(wipe, list) else ())

    def _ask(self, disks: list[Disk]) -> probe.Host:
        devices = list(dict.fromkeys(disk.device for disk in disks))
        answer = self._low_level_execute_command(probe.command(devices))
        try:
            return probe.parse(answer["stdout"], devices)
        except ValueError as error:
            said = [str(error), *answer["stdout"].splitlines(), *answer["stderr"].splitlines()]
            raise AnsibleError([line for line in said if line.strip()][-1]) from error


def _read(hostvars: Mapping[str, Mapping[str, object]], groups: dict[str, list[str]]) -> tuple[dict, list[str]]:
    """The variables of all hosts, templates resolved, and a sentence for each one that has no value to resolve to."""
    hosts: dict[str, dict[str, object]] = {}
    problems: dict[str, str] = {}
    for host in groups.get("all", []):
        found: dict[str, object] = {}
        for name in VARIABLES:
            try:
                if name in hostvars[host]:
                    found[name] = _resolved(hostvars[host][name])
            except AnsibleError as error:
                # An address that follows from an ansible_host that isn't there is simply no address.
                if name != "vstack_address":
                    problems.setdefault(name, f"`{name}` of {host} has no value: {error.message}")
        hosts[host] = {name: value for name, value in found.items() if value is not None}
    return hosts, list(problems.values())


def _resolved(value: object) -> object:
    plain = _plain(value)
    if plain is None and value is not None:
        raise AnsibleError("it refers to something that is not defined")
    return plain


def _plain(value: object) -> object:
    """Ansible's lazy, tagged and encrypted values as plain data.

    Before ansible-core 2.19 a template that can't be resolved is left as it is; it becomes None.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) or hasattr(value, "__ENCRYPTED__"):
        text = str(value)
        return None if "{{" in text else text
    return value


def _summary(problems: list[str]) -> str:
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}, and nothing was touched"
