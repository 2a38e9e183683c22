"""Documentation of the action plugin of the same name; it runs on the controller."""

DOCUMENTATION = r"""
module: preflight
short_description: Refuse an inventory or a host that V-Stack could not work on
version_added: 1.0.0
author:
  - The V-Stack maintainers
description:
  - The first task of every playbook, on all hosts, with C(any_errors_fatal) and without facts.
  - Checks the whole inventory, then the host's system and the devices in its C(vstack_disks), and fails with one
    sentence for each problem. Problems of the inventory are reported by the first host of the play only.
  - A device passes if it is empty, if it carries the label of V-Stack's own disk of that name, or if the extra variable
    C(vstack_disks_wipe) names it. What is mounted elsewhere or used otherwise never passes.
  - Only reads; the host needs a shell and util-linux, no Python. Reading devices takes root.
options: {}
attributes:
  check_mode:
    description: Runs in check mode just as it does otherwise.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check the inventory and the disks
  hosts: all
  gather_facts: false
  any_errors_fatal: true
  tags: always
  tasks:
    - name: Everything is as it must be before anything is touched
      vstack.cluster.preflight:
"""

RETURN = r"""
msg:
  description: How many problems there are.
  returned: failure
  type: str
problems:
  description: The problems, one sentence a line.
  returned: failure
  type: str
"""
