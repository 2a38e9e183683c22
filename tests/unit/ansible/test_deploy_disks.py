"""What `vstack_disks` means: names, ports, places, and a sentence for each mistake."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ansible.collection import disks
from vstack.settings import ClientSettings, StorageSettings, UploaderSettings


def _entry(**keys: object) -> dict[str, object]:
    return {"name": "d1", "device": "/dev/disk/by-id/one"} | keys


def test_an_entry_is_filled_in() -> None:
    found, problems = disks.normalise([_entry()])
    assert not problems
    assert found[0].as_dict() == {
        "name": "d1",
        "device": "/dev/disk/by-id/one",
        "port": 8081,
        "unit": "vstack-storage@d1.service",
        "mount": "/srv/vstack/d1",
        "data_dir": "/srv/vstack/d1/node",
        "label": "vstack-d1",
        "node_id": None,
        "fstype": "ext4",
        "capacity_bytes": 0,
    }


def test_what_an_entry_says_is_kept() -> None:
    given_keys = {"port": 9001, "node_id": "node-A_1", "fstype": "xfs", "capacity_bytes": 10**12}
    found, problems = disks.normalise([_entry(**given_keys)])
    assert not problems
    assert given_keys.items() <= found[0].as_dict().items()


def test_default_ports_leave_out_those_of_other_services() -> None:
    found, problems = disks.normalise([{"name": f"d{n}", "device": f"/dev/d{n}"} for n in range(6)])
    assert not problems
    assert [disk.port for disk in found] == [8081, 8082, 8083, 8085, 8086, 8087]
    assert _default_port(StorageSettings) == disks.FIRST_PORT
    assert {_default_port(UploaderSettings), _default_port(ClientSettings)} == disks.SKIPPED_PORTS


def _default_port(kind: type[msgspec.Struct]) -> object:
    return next(field.default for field in msgspec.structs.fields(kind) if field.name == "port")


@given(own=st.lists(st.booleans(), min_size=1, max_size=disks.MAX_DISKS))
def test_a_port_of_its_own_moves_no_other_disk(own: list[bool]) -> None:
    plain = [{"name": f"d{n}", "device": f"/dev/d{n}"} for n in range(len(own))]
    mixed = [entry | ({"port": 20000 + n} if own[n] else {}) for n, entry in enumerate(plain)]
    expected, _ = disks.normalise(plain)
    found, problems = disks.normalise(mixed)
    assert not problems
    assert [disk.port for disk in found] == [20000 + n if own[n] else expected[n].port for n in range(len(own))]


@pytest.mark.parametrize(
    ("entries", "problems"),
    [
        ("/dev/sda", ["vstack_disks must be a list of disks like {name: d1, device: /dev/disk/by-id/...}"]),
        (["/dev/sda"], ["disk 1 of vstack_disks must look like {name: d1, device: /dev/disk/by-id/...}"]),
        (
            [{}],
            [
                "disk 1 of vstack_disks has no name: add one like `name: d1`",
                "disk 1 of vstack_disks has no device: add one like `device: /dev/disk/by-id/...`",
            ],
        ),
        (
            [_entry(name="Disk-1")],
            ["disk Disk-1 needs a name of 1 to 9 characters a-z and 0-9 (its ext4 label has no more room)"],
        ),
        (
            [_entry(name="d123456789")],
            ["disk d123456789 needs a name of 1 to 9 characters a-z and 0-9 (its ext4 label has no more room)"],
        ),
        (
            [_entry(name="disk01", fstype="xfs")],
            ["disk disk01 needs a name of 1 to 5 characters a-z and 0-9 (its xfs label has no more room)"],
        ),
        ([_entry(name=1)], ["disk 1 of vstack_disks has the name 1, which is no text: write it in quotes"]),
        (
            [_entry(name="")],
            ["disk 1 of vstack_disks needs a name of 1 to 9 characters a-z and 0-9 (its ext4 label has no more room)"],
        ),
        ([_entry(device="sda")], ['disk d1 has the device "sda": give a path below /dev, best from /dev/disk/by-id']),
        (
            [_entry(device=["/dev/sda"])],
            ["disk d1 has the device ['/dev/sda']: give a path below /dev, best from /dev/disk/by-id"],
        ),
        (
            [_entry(device="/dev/CHANGE-ME-1")],
            ["disk d1 still has the example's device /dev/CHANGE-ME-1: put in the path of the host's own disk"],
        ),
        ([_entry(port="8081")], ['disk d1 has port "8081": give a number from 1024 to 65535, without quotes']),
        ([_entry(port=80)], ["disk d1 has port 80: give a number from 1024 to 65535, without quotes"]),
        ([_entry(port=True)], ["disk d1 has port True: give a number from 1024 to 65535, without quotes"]),
        (
            [_entry(capacity_bytes=-1)],
            ["disk d1 has capacity_bytes -1: give a number from 0 to 1152921504606846976, without quotes"],
        ),
        (
            [_entry(node_id="a b")],
            ['disk d1 has the node_id "a b": use up to 64 characters of A-Z, a-z, 0-9, _ and - as text'],
        ),
        ([_entry(node_id=7)], ["disk d1 has the node_id 7: use up to 64 characters of A-Z, a-z, 0-9, _ and - as text"]),
        ([_entry(fstype="btrfs")], ['disk d1 has fstype "btrfs": use ext4 or xfs']),
        (
            [_entry(prot=8081)],
            ["disk d1 has the unknown key `prot`: known are capacity_bytes, device, fstype, name, node_id, port"],
        ),
        ([_entry(), _entry(device="/dev/sdb")], ["two disks have the name d1: names are unique on a host"]),
        (
            [_entry(), _entry(name="d2")],
            ["disks d1 and d2 are the same device /dev/disk/by-id/one: name each device once"],
        ),
        (
            [_entry(), {"name": "d2", "device": "/dev/sdb", "port": 8081}],
            ["disks d1 and d2 have the same port 8081: give one of them another `port`"],
        ),
        (
            [_entry(name=f"d{n}", device=f"/dev/d{n}") for n in range(65)],
            ["vstack_disks has 65 disks; a host may have at most 64"],
        ),
    ],
)
def test_a_mistake_is_a_sentence(entries: object, problems: list[str]) -> None:
    assert disks.normalise(entries)[1] == problems


def test_an_entry_with_a_mistake_does_not_hide_the_others() -> None:
    found, problems = disks.normalise([_entry(port=1), {"name": "d2", "device": "/dev/sdb"}])
    assert [disk.name for disk in found] == ["d2"]
    assert len(problems) == 1
