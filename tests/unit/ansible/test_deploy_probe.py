"""The question to a host, put to this one, and answers of others."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ansible.collection import probe

_HEAD = """Welcome to s1
@vstack-probe os
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
ID=debian
@vstack-probe machine
x86_64
@vstack-probe python
3.11
@vstack-probe uid
0
"""

_PARTITIONED = """@vstack-probe stat 0
block special file|8:10
@vstack-probe tree 0
{
   "blockdevices": [
      {"name":"sdb", "type":"disk", "size":1000204886016, "ro":false, "mountpoints":[null],
         "children": [
            {"name":"sdb1", "type":"part", "size":1048576, "ro":false, "mountpoints":["/boot"],
               "children": [
                  {"name":"md0", "type":"raid1", "size":1048576, "ro":false, "mountpoints":["[SWAP]"]}
               ]
            }
         ]
      }
   ]
}
@vstack-probe signatures 0
{
   "signatures": [
      {"type":"gpt", "label":null, "usage":null},
      {"type":"ext4", "label":"photos", "usage":"filesystem"}
   ]
}
"""


def _ask(*devices: str) -> Any:
    ran = subprocess.run(["/bin/sh", "-c", probe.command(devices)], capture_output=True, text=True, check=True)
    return probe.parse(ran.stdout, devices)


def test_this_host_answers() -> None:
    host = _ask()
    assert host.os["ID"]
    assert host.machine
    assert host.python is not None
    assert host.python >= (3, 0)
    assert host.devices == {}


def test_paths_without_a_device(tmp_path: Path) -> None:
    file = tmp_path / "it's a file; $(exit 1)"
    file.touch()
    host = _ask(str(file), "/dev/null", str(tmp_path / "nothing"))
    assert host.devices == {
        str(file): probe.Device(exists=True),
        "/dev/null": probe.Device(exists=True),
        str(tmp_path / "nothing"): probe.Device(exists=False),
    }


def test_a_partitioned_device() -> None:
    device = probe.parse(_HEAD + _PARTITIONED, ["/dev/sdb"]).devices["/dev/sdb"]
    assert device == probe.Device(
        exists=True,
        number="8:10",
        readable=True,
        size_bytes=1000204886016,
        mountpoints=("/boot", "[SWAP]"),
        holders=(probe.Holder("sdb1", "part"), probe.Holder("md0", "raid1")),
        signatures=(probe.Signature("gpt", ""), probe.Signature("ext4", "photos")),
    )


def test_a_terminal_s_line_ends_change_nothing() -> None:
    text = _HEAD + _PARTITIONED
    assert probe.parse(text.replace("\n", "\r\n"), ["/dev/sdb"]) == probe.parse(text, ["/dev/sdb"])


def test_what_failed_is_not_taken_for_empty() -> None:
    """An unreadable device must never look like one without signatures."""
    cut = _PARTITIONED.partition("@vstack-probe signatures 0\n")[0]
    for answer in (cut, f"{cut}@vstack-probe signatures 0\n"):
        device = probe.parse(_HEAD + answer, ["/dev/sdb"]).devices["/dev/sdb"]
        assert not device.readable
        assert device.mountpoints == ("/boot", "[SWAP]")


def test_a_host_without_python() -> None:
    assert probe.parse(_HEAD.replace("3.11", ""), []).python is None


@pytest.mark.parametrize("answer", ["", "sudo: a password is required", "@vstack-probe os\nID=debian\n"])
def test_half_an_answer_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match="not complete"):
        probe.parse(answer, [])
