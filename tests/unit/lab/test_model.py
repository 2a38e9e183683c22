"""Names, addresses and files of the hosts lab."""

import json
from pathlib import Path

import pytest

from scripts.lab_lib import model
from scripts.lab_lib.command import LabError
from scripts.lab_lib.model import Host, HostSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("s1", HostSpec("s1")),
        ("s1:3", HostSpec("s1", 3)),
        ("store-1:2:600", HostSpec("store-1", 2, 600)),
    ],
)
def test_a_spec_says_host_disks_and_size(text: str, spec: HostSpec) -> None:
    assert HostSpec.parse(text) == spec


@pytest.mark.parametrize(
    "text", ["", "S1", "1s", "a/b", "a b", "s1:", "s1:x", "s1:-1", "s1:1:0", "s1:99", "s1:1:2:3", "s1:²", "a" * 32]
)
def test_a_spec_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        HostSpec.parse(text)


def test_a_directory_that_would_break_mount_options_is_refused() -> None:
    assert model.checked_directory(Path("/srv/check-out_1.0/.lab")) == Path("/srv/check-out_1.0/.lab")
    for path in ("/my lab", "/a:b", "/a,b", "/a\\b"):
        with pytest.raises(LabError, match="--dir"):
            model.checked_directory(Path(path))


def build(*specs: str) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = ()
    for spec in specs:
        hosts = model.add_host(hosts, HostSpec.parse(spec))
    return hosts


def test_addresses_are_given_in_order_and_the_lowest_free_one_again() -> None:
    one, two, three = build("one", "two", "three")
    assert [host.address for host in (one, two, three)] == ["198.51.100.11", "198.51.100.12", "198.51.100.13"]
    hosts = model.add_host((one, three), HostSpec("four"))
    assert hosts[-1].address == "198.51.100.12"


def test_a_host_that_is_there_stays_and_in_another_shape_is_refused() -> None:
    hosts = build("one:2:300")
    assert model.add_host(hosts, HostSpec("one", 2, 300)) == hosts
    for spec in (HostSpec("one", 3, 300), HostSpec("one", 2, 400)):
        with pytest.raises(LabError, match="take it down first"):
            model.add_host(hosts, spec)


def test_a_lab_has_no_more_hosts_than_addresses() -> None:
    room = model.LAST_ADDRESS - model.FIRST_ADDRESS + 1
    hosts = build(*(f"h{number}" for number in range(room)))
    assert len({host.address for host in hosts}) == room
    with pytest.raises(LabError, match="at most"):
        model.add_host(hosts, HostSpec("late"))


def test_the_list_of_hosts_is_read_as_it_was_written() -> None:
    hosts = build("one:2:300", "two")
    assert model.decode_hosts(model.encode_hosts(hosts)) == hosts


def test_labs_of_other_directories_have_other_ids() -> None:
    ids = {model.lab_id(Path(directory), name) for directory in ("/a", "/b") for name in ("x", "y")}
    assert len(ids) == 4


def test_the_inventory_tells_how_to_reach_every_host() -> None:
    paths = {"key": Path("/lab/key"), "ssh": Path("/lab/ssh"), "known_hosts": Path("/lab/known")}
    text = model.inventory(build("one:2", "two"), **paths, control_path="/run/lab/%h-%r")
    # Read it without a YAML library: what follows the names is JSON.
    values = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    assert json.loads(values["ansible_ssh_executable"]) == "/lab/ssh"
    assert json.loads(values["ansible_control_path"]) == "/run/lab/%%h-%%r"  # Ansible formats it
    assert "StrictHostKeyChecking=yes" in values["ansible_ssh_common_args"]
    one, two = text.partition("    one:\n")[2].split("    two:\n")
    assert "ansible_host: 198.51.100.11" in one
    assert 'lab_disks: ["/dev/disk/by-id/vstack-lab-d1", "/dev/disk/by-id/vstack-lab-d2"]' in one
    assert "ansible_host: 198.51.100.12" in two
    assert "lab_disks: []" in two


def test_every_host_knows_all_names() -> None:
    text = model.hosts_file(build("one", "two"))
    assert "198.51.100.11 one\n198.51.100.12 two\n" in text


def test_disks_get_their_names_from_the_devices_of_this_boot() -> None:
    assert 'KERNEL=="loop7", SYMLINK+="disk/by-id/vstack-lab-d1"\n' in model.udev_rules({"d1": "loop7"})
    assert " /sys/block/loop7 " in model.coldplug(["loop7"])
