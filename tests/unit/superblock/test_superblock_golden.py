"""Golden images of format v1: today's code reads what that version wrote, and writes the same bytes again.

`golden/v1-*.image` are superblock files, compressed with zlib, and `golden/v1.json` says what is in them. To make them
for a new format version: python -m tests.unit.superblock.test_superblock_golden
"""

import asyncio
import json
import random
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.storage.engine.simulation import Image, SimulatedDisk, inline_threads
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.core.superblock import footer, header
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.core.superblock.walk import walk
from vstack.errors import NotFoundError
from vstack.storage.engine import Sources, open_on
from vstack.storage.engine.engine import DiskEngine
from vstack.storage.engine.upkeep import Limits
from vstack.units import KIB

GOLDEN: Final = Path(__file__).parent / "golden"
SUPERBLOCK_BYTES: Final = 512 * KIB
CHUNKS: Final = {"video-chunk-000": 1, "video-chunk-001": 70_000, "video-chunk-002-frag-4": 4096, "x": 100_000}
CONFIG: Final = Config(3, ("node-a", "node-b", "n" * 64))
STATES: Final = (
    AcceptorState(Instance("video-chunk-000", 0, CONFIG), 0, 0, b'{"mode":"replication"}'),
    AcceptorState(Instance("video-chunk-001", 1, CONFIG), 7 << 16, 5 << 16, b"v" * 3072, learned=True),
    AcceptorState(Instance("video-chunk-009", 2, Config(1, ("node-a",))), retired=True),
    AcceptorState(Instance("video-chunk-010", 0, CONFIG), promised=1 << 51),
)


def body(chunk_id: str) -> bytes:
    return (chunk_id.encode() * 100_000)[: CHUNKS[chunk_id]]


async def open_engine(disk: SimulatedDisk) -> DiskEngine:
    rng = random.Random(1)
    sources = Sources(clock_ms=lambda: 1_735_689_600_000, random_bytes=rng.randbytes)
    return await open_on(disk, inline_threads(), Limits(SUPERBLOCK_BYTES, 0), node_id="node-a", sources=sources)


async def write() -> Image:
    """A disk with one sealed, one open and free superblocks; every record type; a recycled file."""
    disk = SimulatedDisk()
    engine = await open_engine(disk)

    async def put(chunk_id: str, data: bytes, acceptance: AcceptorState | None = None) -> None:
        fragment_index = 4 if "frag" in chunk_id else -1
        async with engine.buffer() as buffer:
            buffer.payload[: len(data)] = data
            await engine.put(chunk_id, buffer, len(data), epoch=1, fragment_index=fragment_index, acceptance=acceptance)
        await engine._upkeep.settle()

    for number in range(2):
        await put(f"deleted-{number}", bytes(90_000))
        await engine.delete(f"deleted-{number}")
    await put("video-chunk-000", body("video-chunk-000"), STATES[0])
    await put("video-chunk-001", body("video-chunk-001"))
    await put("video-chunk-002-frag-4", body("video-chunk-002-frag-4"))
    await engine.journal(STATES[1:])
    await put("deleted-2", b"short-lived")
    await engine.delete("deleted-2")
    await put("x", body("x"))
    await engine.close()
    return disk.image


def files(image: Image) -> dict[str, bytes]:
    return {
        name: b"".join(image.page(name, page) for page in range(size // PAGE_BYTES))
        for name, size in sorted(image.sizes.items())
    }


def stored() -> Image:
    image = Image(small={"identity.json": (GOLDEN / "v1-identity.json").read_bytes()})
    for path in sorted(GOLDEN.glob("v1-*.image")):
        name, data = path.name[3:-6], zlib.decompress(path.read_bytes())
        image.sizes[name] = len(data)
        image.pages[name] = {
            page: data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] for page in range(len(data) // PAGE_BYTES)
        }
    return image


async def test_today_writes_the_bytes_of_version_1() -> None:
    written, golden = files(await write()), files(stored())
    assert written.keys() == golden.keys()
    for name, data in written.items():
        different = [page for page in range(len(data) // PAGE_BYTES) if _page(data, page) != _page(golden[name], page)]
        assert not different, f"pages {different} of {name} differ from the golden image"


async def test_today_reads_version_1() -> None:
    engine = await open_engine(SimulatedDisk(stored()))
    for chunk_id in CHUNKS:
        async with engine.get(chunk_id) as reading:
            assert reading.payload == body(chunk_id)
            assert (reading.info.epoch, reading.info.fragment_index) == (1, 4 if "frag" in chunk_id else -1)
    for number in range(3):
        with pytest.raises(NotFoundError):
            await engine.get(f"deleted-{number}").__aenter__()
    rows, _ = await engine.acceptors(None, 100)
    assert sorted(rows, key=str) == sorted(STATES, key=str)
    assert engine.usage().chunk_count == len(CHUNKS)
    assert engine.usage().quarantined_bytes == 0
    await engine.close()


async def test_the_images_hold_every_state_and_record_type() -> None:
    contents = json.loads((GOLDEN / "v1.json").read_text())
    assert set(contents["states"]) == {"free", "open", "sealed"}
    assert set(contents["types"]) == {"chunk", "tombstone", "accept", "learn", "retire"}
    assert contents == _contents(stored())


def _contents(image: Image) -> dict[str, Any]:
    states, types, footers = set(), set(), 0
    for data in files(image).values():
        known = header.decode(data[:PAGE_BYTES])
        assert known is not None
        states.add(known.state.name.lower())
        found = walk(lambda offset, length, data=data: data[offset : offset + length], known)  # type: ignore[misc]
        types |= {each.record.type.name.lower() for each in found.records}
        footers += footer.decode(data[-256 * KIB :], known) is not None
    return {"states": sorted(states), "types": sorted(types), "footers": footers}


def _page(data: bytes, page: int) -> bytes:
    return data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]


if __name__ == "__main__":
    made = asyncio.run(write())
    GOLDEN.mkdir(exist_ok=True)
    for name, data in files(made).items():
        (GOLDEN / f"v1-{name}.image").write_bytes(zlib.compress(data, 9))
    (GOLDEN / "v1-identity.json").write_bytes(made.small["identity.json"])
    (GOLDEN / "v1.json").write_text(json.dumps(_contents(made), indent=2) + "\n")
