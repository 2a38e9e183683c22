"""The preflight as an operator meets it: ansible-playbook, on this machine, with loop devices for disks."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.ansible.collection import ANSIBLE, ROOT

pytestmark = pytest.mark.deploy

TOOLS = ROOT / ".venv-deploy/bin"
SECRET = "0123456789abcdef0123456789abcdef"
DISK_BYTES = 16 << 20
# True of the machine that runs the tests, and not their business.
OWN_SYSTEM = re.compile(r"\S+ (runs|is of kind|has Python) ")


@dataclass
class Site:
    """An inventory in a directory of its own, and runs of Ansible's programs with it."""

    directory: Path
    file: str = "hosts.json"

    def write(self, inventory: dict[str, object]) -> None:
        (self.directory / self.file).write_text(json.dumps(inventory))

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_INVENTORY": str(self.directory / self.file),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            [str(TOOLS / tool), *arguments],
            cwd=ANSIBLE,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def problems(self, *arguments: str) -> list[str]:
        """The sentences that the operator reads; the play fails exactly if there are any."""
        ran = self.run("ansible-playbook", "playbooks/preflight.yml", "-e", "ansible_connection=local", *arguments)
        found = [
            line
            for block in re.findall(r"^    problems: \|-\n((?: {8}.*\n)+)", ran.stdout, re.MULTILINE)
            for line in block.splitlines()
        ]
        assert ran.returncode == (2 if found else 0), ran.stdout + ran.stderr
        assert "changed=0" in ran.stdout
        assert SECRET not in ran.stdout + ran.stderr
        return [line.strip() for line in found if not OWN_SYSTEM.match(line.strip())]


def _one_host(disks: list[dict[str, object]], **variables: object) -> dict[str, object]:
    own = {
        "ansible_host": "192.0.2.1",
        "vstack_disks": disks,
        "vstack_failure_domain": "disk",
        "vstack_cluster_key": SECRET,
        "vstack_postgres_password": SECRET,
    }
    member: dict[str, object] = {"hosts": {"h1": {}}}
    groups = dict.fromkeys(("postgres", "metadata", "uploader"), member)
    return {"storage": {"hosts": {"h1": own | variables}}, **groups}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[str]]:
    """Three empty disks. Each holds its own file only, and is given back by its own name."""
    if os.geteuid() != 0:
        pytest.skip("loop devices take root")
    loops: list[str] = []
    try:
        for number in range(3):
            image = tmp_path / f"disk-{number}"
            with image.open("wb") as file:
                file.truncate(DISK_BYTES)
            loops.append(_do("losetup", "--find", "--show", str(image)).strip())
        yield loops
    finally:
        for loop in loops:
            _do("losetup", "--detach", loop)


def _do(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _disks(devices: list[str]) -> list[dict[str, object]]:
    return [{"name": f"d{number}", "device": device} for number, device in enumerate(devices, start=1)]


def _wipe(*devices: str) -> tuple[str, str]:
    return "-e", json.dumps({"vstack_disks_wipe": devices})


def test_empty_disks_and_own_disks_pass(site: Site, devices: list[str]) -> None:
    site.write(_one_host(_disks(devices)))
    assert site.problems() == []
    _do("mkfs.ext4", "-q", "-L", "vstack-d1", devices[0])
    assert site.problems() == []
    assert site.problems("--check", "--diff") == []


def test_a_disk_with_data_is_left_alone_unless_named(site: Site, devices: list[str], tmp_path: Path) -> None:
    _do("mkfs.ext4", "-q", "-L", "photos", devices[1])
    before = (tmp_path / "disk-1").read_bytes()
    site.write(_one_host(_disks(devices)))
    allow = f"-e '{json.dumps({'vstack_disks_wipe': [devices[1]]})}'"
    kept = f"h1: disk d2: {devices[1]} holds data (ext4 with label photos) and is left alone: name another device; "
    refused = [f"{kept}if it may be lost, add {allow}"]
    assert site.problems() == refused
    assert site.problems("--check", "--diff") == refused
    assert site.problems(*_wipe(devices[1])) == []
    assert (tmp_path / "disk-1").read_bytes() == before


def test_a_disk_in_use_is_refused_although_it_is_named(site: Site, devices: list[str], tmp_path: Path) -> None:
    _do("mkfs.ext4", "-q", "-L", "vstack-d1", devices[0])
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    site.write(_one_host(_disks(devices)))
    _do("mount", devices[0], str(mounted))
    try:
        found = site.problems(*_wipe(devices[0]))
    finally:
        _do("umount", str(mounted))
    assert found == [
        f"h1: disk d1: {devices[0]} is mounted on {mounted}: unmount it there first, or name another device"
    ]


def test_own_disks_that_were_swapped(site: Site, devices: list[str]) -> None:
    _do("mkfs.ext4", "-q", "-L", "vstack-d2", devices[0])
    site.write(_one_host(_disks(devices)))
    (problem,) = site.problems()
    assert problem.startswith(f"h1: disk d1: {devices[0]} is V-Stack's disk d2, not d1: correct the name or the device")


def test_two_paths_of_one_disk(site: Site, devices: list[str], tmp_path: Path) -> None:
    # A path below /dev is asked for; the link itself may lead anywhere.
    (tmp_path / "link").symlink_to(devices[0])
    link = f"/dev/..{tmp_path}/link"
    site.write(_one_host(_disks([*devices, link])))
    assert site.problems() == [
        f"h1: disks d1 and d4 are the same device: {devices[0]} and {link} lead to one disk, so name it once"
    ]


def test_a_list_to_wipe_in_the_inventory_is_refused(site: Site, devices: list[str]) -> None:
    site.write(_one_host(_disks(devices), vstack_disks_wipe=[devices[0]]))
    (problem,) = site.problems()
    assert problem.startswith("`vstack_disks_wipe` stands in the inventory, where it would wipe again and again")


def test_problems_of_the_inventory_stand_there_once(site: Site) -> None:
    hosts: dict[str, dict[str, object]] = {
        f"s{n}": {"ansible_host": f"192.0.2.{n}", "vstack_disks": [{"name": "d1", "device": "/dev/none"}]}
        for n in range(1, 4)
    }
    del hosts["s3"]["ansible_host"]
    hosts["s2"]["vstack_disks"] = "{{ no_such_disks }}"
    member: dict[str, object] = {"hosts": {"s1": {}}}
    groups = dict.fromkeys(("postgres", "metadata", "uploader"), member)
    site.write({"storage": {"hosts": hosts, "vars": {"vstack_postgres_password": SECRET}}, **groups})
    found = site.problems()
    about_devices = [problem for problem in found if "/dev/none does not exist" in problem]
    assert sorted(problem.partition(":")[0] for problem in about_devices) == ["s1", "s3"]
    assert len([problem for problem in found if problem.startswith("`vstack_cluster_key` is missing")]) == 1
    assert len([problem for problem in found if problem.startswith("s3 has no address")]) == 1
    assert len([problem for problem in found if problem.startswith("`vstack_disks` of s2 has no value")]) == 1


def test_a_limited_run_checks_the_whole_inventory(site: Site) -> None:
    other = {"h2": {"ansible_host": "192.0.2.1", "vstack_failure_domain": "disk"}}
    site.write(_one_host(_disks(["/dev/none1", "/dev/none2", "/dev/none3"])) | {"client": {"hosts": other}})
    (problem,) = site.problems("--limit", "h2")
    assert problem.startswith("h1 and h2 have the same address 192.0.2.1")


def test_an_unreachable_host_does_not_hide_what_is_wrong(site: Site) -> None:
    site.write(_one_host([]))
    no_ssh = site.directory / "ssh"
    no_ssh.write_text("#!/bin/sh\necho 'No route to host' >&2\nexit 255\n")
    no_ssh.chmod(0o755)
    found = site.problems("-e", "ansible_connection=ssh", "-e", f"ansible_ssh_executable={no_ssh}")
    assert found[0].startswith("h1 is in group storage and has no disks")
    assert found[-1].startswith("h1: cannot be looked at: ")
    assert "No route to host" in found[-1]


@pytest.mark.parametrize("name", ["example", "single-host"])
def test_the_inventories_that_come_along(site: Site, name: str) -> None:
    copied = site.directory / name
    shutil.copytree(ANSIBLE / "inventories" / name, copied)
    site.file = f"{name}/hosts.yml"
    secrets = copied / "group_vars/all/vault.yml"
    shutil.copy(copied / "group_vars/all/vault.yml.example", secrets)
    untouched = site.problems()
    assert [problem for problem in untouched if "still" not in problem] == []
    assert any(problem.startswith("`vstack_cluster_key` is still the example's") for problem in untouched)
    for file in (secrets, copied / "hosts.yml"):
        file.write_text(file.read_text().replace("CHANGE-ME", SECRET if file == secrets else "NONE"))
    password = site.directory / "password"
    password.write_text("of the vault")
    site.run("ansible-vault", "encrypt", "--vault-password-file", str(password), str(secrets))
    assert secrets.read_text().startswith("$ANSIBLE_VAULT")
    found = site.problems("--vault-password-file", str(password))
    assert found
    assert [problem for problem in found if "does not exist on this host" not in problem] == []


def test_what_is_derived_is_there_in_every_play(site: Site) -> None:
    site.write(
        {
            "metadata": {"hosts": {"m1": {"ansible_host": "192.0.2.1"}, "m2": {"vstack_address": "2001:db8::2"}}},
            "postgres": {"hosts": {"p1": {"ansible_host": "192.0.2.3"}}},
        }
    )
    shown = site.run(
        "ansible",
        "p1",
        "--playbook-dir",
        "playbooks",
        "-m",
        "ansible.builtin.debug",
        "-a",
        "msg={{ [vstack_metadata_urls, vstack_database_url, vstack_release] | to_json }}",
    ).stdout
    assert "http://192.0.2.1:8080" in shown
    assert "http://[2001:db8::2]:8080" in shown
    assert "postgresql://vstack@192.0.2.3:5432/vstack?target_session_attrs=read-write" in shown
    assert f"{ROOT}/dist/vstack-" in shown
