"""Hosts and devices that are refused, with the sentence for each, and those that are not."""

import tomllib
from pathlib import Path

import pytest

from tests.unit.ansible.collection import disks, host_checks, probe

SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_name("host_sentences.toml").read_text())
DEVICE = "/dev/disk/by-id/one"


def _device(**values: object) -> object:
    return probe.Device(**{"exists": True, "number": "8:10", "readable": True, "size_bytes": 10**12} | values)


def _host(device: object | None = None, **values: object) -> object:
    fine: dict[str, object] = {
        "os": {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
        "machine": "x86_64",
        "python": (3, 11),
        "is_root": True,
        "devices": {DEVICE: device or _device()},
    }
    return probe.Host(**fine | values)


def _signature(kind: str, label: str = "") -> tuple[object, ...]:
    return (probe.Signature(kind, label),)


def _holder(name: str, kind: str) -> tuple[object, ...]:
    return (probe.Holder(name, kind),)


def _problems(host: object, wipe: tuple[str, ...] = (), *, fstype: str = "ext4") -> list[str]:
    wanted, mistakes = disks.normalise([{"name": "d1", "device": DEVICE, "fstype": fstype}])
    assert not mistakes
    found: list[str] = host_checks.check("s1", host, wanted, wipe)
    return found


OWN = _signature("ext4", "vstack-d1")
PARTITIONS = (*_holder("sdb1", "part"), *_holder("sdb2", "part"))

RIGHT = {
    "empty": _host(),
    "own": _host(_device(signatures=OWN)),
    "own, mounted in its place": _host(_device(signatures=OWN, mountpoints=("/srv/vstack/d1",))),
    "own, with an old signature beside it": _host(_device(signatures=(*_signature("PMBR"), *OWN))),
    "Ubuntu 24.04": _host(os={"ID": "ubuntu", "VERSION_ID": "24.04"}, python=(3, 12)),
    "Debian 13": _host(os={"ID": "debian", "VERSION_ID": "13"}, python=(3, 13)),
}

WRONG = {
    "missing device": _host(_device(exists=False, number=None, readable=False)),
    "no block device": _host(_device(number=None, readable=False)),
    "unreadable device": _host(_device(readable=False)),
    "device without medium": _host(_device(size_bytes=0)),
    "read-only device": _host(_device(read_only=True)),
    "device of the root file system": _host(_device(signatures=_signature("ext4"), mountpoints=("/",))),
    "unreadable device of the root file system": _host(_device(readable=False, mountpoints=("/",))),
    "own disk, mounted elsewhere": _host(_device(signatures=OWN, mountpoints=("/mnt",))),
    "swap in use": _host(_device(signatures=_signature("swap"), mountpoints=("[SWAP]",))),
    "other file system": _host(_device(signatures=_signature("xfs", "photos"))),
    "file system without a label": _host(_device(signatures=_signature("ext4"))),
    "member of an array": _host(_device(signatures=_signature("linux_raid_member"))),
    "running array": _host(_device(signatures=_signature("linux_raid_member"), holders=_holder("md0", "raid1"))),
    "physical volume": _host(_device(signatures=_signature("LVM2_member"))),
    "physical volume in use": _host(_device(signatures=_signature("LVM2_member"), holders=_holder("vg-home", "lvm"))),
    "partitions": _host(_device(signatures=(*_signature("PMBR"), *_signature("gpt")), holders=PARTITIONS)),
    "empty partition table": _host(_device(signatures=_signature("dos"))),
    "own label beside partitions": _host(_device(signatures=OWN, holders=PARTITIONS)),
    "own disk of another name": _host(_device(signatures=_signature("ext4", "vstack-d2"))),
    "own disk of another type": _host(_device(signatures=_signature("xfs", "vstack-d1"))),
    "not root": _host(_device(readable=False), is_root=False),
    "old Debian": _host(os={"ID": "debian", "VERSION_ID": "11", "PRETTY_NAME": "Debian GNU/Linux 11 (bullseye)"}),
    "old Ubuntu": _host(os={"ID": "ubuntu", "VERSION_ID": "22.04", "PRETTY_NAME": "Ubuntu 22.04.5 LTS"}),
    "Debian without a version": _host(os={"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux forky/sid"}),
    "another system": _host(os={"ID": "fedora", "VERSION_ID": "43", "PRETTY_NAME": "Fedora Linux 43"}),
    "unknown system": _host(os={}),
    "another machine": _host(machine="aarch64"),
    "no Python": _host(python=None),
    "old Python": _host(python=(3, 9)),
    "new Python": _host(python=(3, 14)),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_passes(case: str) -> None:
    assert _problems(RIGHT[case]) == []


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case: str) -> None:
    assert _problems(WRONG[case]) == [SENTENCES[case]]


def test_each_sentence_has_a_host() -> None:
    assert WRONG.keys() == SENTENCES.keys()


@pytest.mark.parametrize(
    "case",
    [
        "other file system",
        "file system without a label",
        "member of an array",
        "physical volume",
        "partitions",
        "empty partition table",
        "own label beside partitions",
        "own disk of another name",
    ],
)
def test_what_nothing_uses_may_be_wiped_by_name(case: str) -> None:
    assert _problems(WRONG[case], (DEVICE,)) == []
    assert _problems(WRONG[case], ("/dev/disk/by-id/two",)) == [SENTENCES[case]]


@pytest.mark.parametrize(
    "case",
    [
        "device of the root file system",
        "own disk, mounted elsewhere",
        "swap in use",
        "running array",
        "physical volume in use",
        "read-only device",
        "missing device",
    ],
)
def test_what_is_in_use_is_refused_although_it_is_named(case: str) -> None:
    assert _problems(WRONG[case], (DEVICE,)) == [SENTENCES[case]]


def test_the_own_disk_passes_although_it_is_named() -> None:
    """The same command run twice must not fail, and role disks keeps what carries the label."""
    assert _problems(RIGHT["own, mounted in its place"], (DEVICE,)) == []


def test_two_paths_of_one_device() -> None:
    wanted, _ = disks.normalise([{"name": "d1", "device": DEVICE}, {"name": "d2", "device": "/dev/sdb"}])
    host = _host(devices={DEVICE: _device(), "/dev/sdb": _device()})
    assert host_checks.check("s1", host, wanted, ()) == [
        "s1: disks d1 and d2 are the same device: /dev/disk/by-id/one and /dev/sdb lead to one disk, so name it once"
    ]


def test_two_missing_devices_are_not_the_same() -> None:
    wanted, _ = disks.normalise([{"name": "d1", "device": DEVICE}, {"name": "d2", "device": "/dev/sdb"}])
    missing = probe.Device(exists=False)
    problems = host_checks.check("s1", _host(devices={DEVICE: missing, "/dev/sdb": missing}), wanted, ())
    assert len(problems) == 2
    assert all("does not exist" in problem for problem in problems)


def test_a_host_without_disks_needs_no_root() -> None:
    assert host_checks.check("meta1", _host(is_root=False, devices={}), [], ()) == []
