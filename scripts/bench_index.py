#!/usr/bin/env python3
"""Print what a node with many chunks needs in memory and how long it takes to open, on a real disk with real records.

Every chunk is a record of 2 pages; with --acceptors N, N acceptor records stand beside the chunks. Each figure of
opening comes from a fresh process: after a clean stop; after a crash (the newest snapshot, then the log behind it); and
without any snapshot (from footers alone). The page cache does not help: superblocks are read with O_DIRECT.
"""

import argparse
import asyncio
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.core.superblock.record import AcceptorBody, Body, ChunkBody, block_crcs
from vstack.ids import chunk_id
from vstack.storage.directio import aligned_buffer
from vstack.storage.engine import DiskEngine, open_engine
from vstack.storage.engine.plans import Known
from vstack.storage.engine.recovery import SNAPSHOT_NAME
from vstack.storage.engine.volume import Part
from vstack.units import GIB, MIB

BATCH = 256
VIDEO_CHUNKS = 1000
PAYLOAD = b"v" * 1000
SUPERBLOCK_BYTES = 64 * MIB


class Bulk:
    """A plan that appends many records in one write."""

    def __init__(self, bodies: list[Body]) -> None:
        self.known: Known = {}
        self._bodies = bodies

    def parts(self) -> list[Part]:
        memory = aligned_buffer(PAGE_BYTES * sum(body.pages for body in self._bodies))
        parts, offset = [], 0
        for body in self._bodies:
            length = body.pages * PAGE_BYTES
            if isinstance(body, ChunkBody):
                memory[offset + PAGE_BYTES : offset + PAGE_BYTES + len(PAYLOAD)] = PAYLOAD
            parts.append(Part(body, memory[offset : offset + length]))
            offset += length
        return parts


def name(number: int) -> str:
    video = hashlib.blake2b(str(number // VIDEO_CHUNKS).encode(), digest_size=16).hexdigest()
    return chunk_id(video, number % VIDEO_CHUNKS)


def chunk(number: int) -> ChunkBody:
    crcs = block_crcs(memoryview(PAYLOAD))
    return ChunkBody(name(number), 0, -1, 0, 0, len(PAYLOAD), hashlib.sha256(PAYLOAD).digest(), crcs)


def acceptor(number: int) -> AcceptorBody:
    instance = Instance(name(number), 0, Config(1, ("a", "b", "c")))
    return AcceptorBody(AcceptorState(instance, 0, 0, b"{}", learned=True))


async def write(engine: DiskEngine, bodies: list[Body]) -> None:
    for start in range(0, len(bodies), BATCH):
        await engine._commit.write(Bulk(bodies[start : start + BATCH]), use_reserve=False)  # noqa: SLF001


async def fill(directory: Path, chunks: int, acceptors: int) -> None:
    engine = await open_engine(directory, superblock_bytes=SUPERBLOCK_BYTES, capacity_bytes=200 * GIB)
    for start in range(0, max(chunks, acceptors), 10 * BATCH):
        end = start + 10 * BATCH
        await write(engine, [chunk(number) for number in range(start, min(end, chunks))])
        await write(engine, [acceptor(number) for number in range(start, min(end, acceptors))])
    await engine.close()


async def opened(directory: Path) -> None:
    """In a fresh process: open, and print how long it took, how much memory it added and what there is."""
    before = _resident_bytes()
    started = time.perf_counter()
    engine = await open_engine(directory, superblock_bytes=SUPERBLOCK_BYTES, capacity_bytes=200 * GIB)
    seconds = time.perf_counter() - started
    after = _resident_bytes()
    first = time.perf_counter()
    async with engine.get(name(0)):
        found = time.perf_counter() - first
    print(
        json.dumps(
            {
                "seconds": seconds,
                "added_bytes": after - before,
                "index_bytes": sum(
                    len(index.dump())
                    for index in (engine._volume.catalogue.chunks, engine._volume.catalogue.acceptors)  # noqa: SLF001
                ),
                "chunks": engine.usage().chunk_count,
                "get_seconds": found,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        ),
        flush=True,
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def measure(what: str, directory: Path, chunks: int) -> None:
    """Open in a process of its own, which ends without closing: that is a crash."""
    code = (
        "import asyncio, os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import bench_index\n"
        "asyncio.new_event_loop().run_until_complete(bench_index.opened(Path(sys.argv[2]))); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(directory)], capture_output=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["chunks"] == chunks, f"{found['chunks']} chunks found, not {chunks}"
    print(
        f"{what:28}{found['seconds']:9.2f}{found['index_bytes'] / chunks:15.1f}{found['added_bytes'] / chunks:18.1f}"
        f"{found['peak_bytes'] / 1e6:10.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=500_000)
    parser.add_argument("--acceptors", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="where to make the temporary data directory (8 KiB a chunk)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as temporary:
        directory = Path(temporary) / "data"
        started = time.perf_counter()
        asyncio.run(fill(directory, options.chunks, options.acceptors))
        seconds = time.perf_counter() - started
        print(f"{options.chunks} chunks, {options.acceptors} acceptor states, written in {seconds:.0f} s")
        print(f"{'open':28}{'seconds':>9}{'index B/chunk':>15}{'resident B/chunk':>18}{'peak MB':>10}")
        measure("after a clean stop", directory, options.chunks)
        measure("after a crash", directory, options.chunks)
        (directory / SNAPSHOT_NAME).unlink()
        measure("without a snapshot", directory, options.chunks)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
