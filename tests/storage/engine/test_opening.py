"""Which directories are opened, which are formatted, and which are refused with one line that says why."""

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.storage.engine.conftest import Node
from tests.storage.engine.simulation import Image, SimulatedDisk, inline_threads
from tests.storage.engine.workload import LIMITS, data, name
from vstack.core.superblock import header
from vstack.core.superblock.header import SuperblockHeader
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.errors import SettingsError
from vstack.storage.contract import DiskState
from vstack.storage.engine import DiskEngine, open_on
from vstack.storage.engine.identity import IDENTITY_NAME

SUPERBLOCK = "000000.superblock"


async def opened(disk: SimulatedDisk, *, node_id: str | None = None, may_format: bool = True) -> DiskEngine:
    return await open_on(disk, inline_threads(), LIMITS, node_id=node_id, may_format=may_format)


async def formatted() -> SimulatedDisk:
    disk = SimulatedDisk()
    await (await opened(disk, node_id="node-1")).close()
    return disk


def rewrite_headers(disk: SimulatedDisk, change: Callable[[SuperblockHeader], SuperblockHeader]) -> None:
    known = header.decode(disk.image.page(SUPERBLOCK, 0))
    assert known is not None
    for page in (0, 1):
        disk.image.pages[SUPERBLOCK][page] = change(known).encode()


async def test_an_empty_directory_is_formatted_with_an_identity_of_its_own() -> None:
    one, other = SimulatedDisk(), SimulatedDisk()
    identities = []
    for disk in (one, other, one):
        engine = await opened(disk)
        identities.append(engine.identity)
        await engine.close()
    assert identities[0].disk_uuid != identities[1].disk_uuid
    assert identities[0].node_id.endswith("-" + identities[0].disk_uuid[:8])
    assert identities[2] == replace(identities[0], incarnation=2)


async def test_a_configured_node_id_is_taken_at_formatting_and_checked_afterwards() -> None:
    disk = await formatted()
    for node_id in ("node-1", None):
        engine = await opened(disk, node_id=node_id)
        assert engine.identity.node_id == "node-1"
        await engine.close()
    with pytest.raises(SettingsError, match="belongs to node node-1, not node-2"):
        await opened(disk, node_id="node-2")


async def test_a_directory_that_holds_anything_else_is_not_formatted() -> None:
    disk = SimulatedDisk(Image(small={"holiday.jpg": b""}))
    with pytest.raises(SettingsError, match="holiday"):
        await opened(disk)
    assert disk.journal == []


async def test_what_a_fresh_file_system_and_a_cut_off_formatting_leave_is_no_obstacle() -> None:
    disk = SimulatedDisk(Image(small={"lost+found": b"", "lock": b"", "identity.json.new": b"half"}))
    await (await opened(disk)).close()


async def test_an_empty_mount_point_is_not_written_where_formatting_is_not_asked_for() -> None:
    disk = SimulatedDisk()
    with pytest.raises(SettingsError, match="is its disk mounted"):
        await opened(disk, may_format=False)
    assert disk.journal == []
    await (await opened(await formatted(), may_format=False)).close()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"{}", b"[]"])
async def test_a_damaged_identity_is_refused(damage: bytes) -> None:
    disk = await formatted()
    disk.image.small[IDENTITY_NAME] = damage
    with pytest.raises(SettingsError, match="damaged"):
        await opened(disk)


async def test_an_edited_identity_is_refused() -> None:
    disk = await formatted()
    disk.image.small[IDENTITY_NAME] = disk.image.small[IDENTITY_NAME].replace(b"node-1", b"node-9")
    with pytest.raises(SettingsError, match="checksum"):
        await opened(disk)


@pytest.mark.parametrize("lost", ["000000.superblock", "000001.superblock", "000002.superblock"])
async def test_a_missing_superblock_file_is_refused(lost: str) -> None:
    disk = await formatted()
    del disk.image.sizes[lost]
    with pytest.raises(SettingsError, match=f"{lost} is missing"):
        await opened(disk)


async def test_a_superblock_of_another_disk_is_refused() -> None:
    disk, other = await formatted(), await formatted()
    disk.image.pages[SUPERBLOCK] = other.image.pages[SUPERBLOCK]
    with pytest.raises(SettingsError, match="belongs to disk"):
        await opened(disk)


async def test_an_unknown_incompatible_feature_is_refused_with_the_version_it_needs() -> None:
    disk = await formatted()
    rewrite_headers(disk, lambda known: replace(known, version=4, incompat=0x10))
    with pytest.raises(SettingsError, match="format version 4 is needed"):
        await opened(disk)


async def test_a_feature_that_forbids_writing_makes_the_disk_read_only(node: Node) -> None:
    await node.put("a", b"bytes")
    await node.close()
    rewrite_headers(node.disk, lambda known: replace(known, version=2, ro_compat=1))
    before = node.disk.image.copy()
    engine = await node.open()
    assert engine.usage().state is DiskState.READ_ONLY
    assert await node.get("a") == b"bytes"
    await node.close()
    assert node.disk.image.pages == before.pages


async def test_an_unknown_compatible_feature_is_ignored() -> None:
    disk = await formatted()
    rewrite_headers(disk, lambda known: replace(known, version=2, compat=0x80))
    await (await opened(disk)).close()


async def test_a_truncated_superblock_costs_what_was_in_the_rest(node: Node) -> None:
    for number in range(4):
        await node.put(name(number), data(number, 9))
    file, offset = node.place(name(3))
    await node.close()
    node.disk.image.sizes[file] = offset
    node.disk.image.small.pop("index.snapshot")
    await node.open()
    for number in range(3):
        assert await node.get(name(number)) == data(number, 9)


async def test_sizes_of_superblocks_may_differ_over_time(node: Node) -> None:
    await node.put("a", data(0, 9))
    node.limits = replace(LIMITS, superblock_bytes=2 * LIMITS.superblock_bytes)
    await node.reopen()
    for number in range(30):
        await node.put(name(number), data(number, 9))
    await node.cut_power()
    assert await node.get("a") == data(0, 9)
    assert set(node.disk.image.sizes.values()) == {LIMITS.superblock_bytes, 2 * LIMITS.superblock_bytes}


async def test_a_header_says_whose_it_is(node: Node) -> None:
    page = node.disk.image.page(SUPERBLOCK, 0)
    known = header.decode(page)
    assert known is not None
    assert str(known.disk_uuid) == node.engine.identity.disk_uuid
    assert known.node_id == node.engine.identity.node_id
    assert struct.unpack_from("<8s", page) == (b"VSTACKSB",)
    assert len(page) == PAGE_BYTES
