"""The process that is killed: an engine on a real directory, writing all the time and saying what was acknowledged.

Each line on the pipe is `B|A chunk_id kind version`: begun or acknowledged. `version` is which bytes (a number, from
which the test makes them again), or `-` for a deletion; kind `chunk` or `state`.
"""

import asyncio
import contextlib
import os
import random
from pathlib import Path

from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.errors import DiskError, StorageFullError
from vstack.storage.engine import DiskEngine, open_engine
from vstack.units import MAX_CHUNK_BYTES, MIB

SUPERBLOCK_BYTES = 8 * MIB
CAPACITY_BYTES = 48 * SUPERBLOCK_BYTES
IDS = [f"v-chunk-{number:03d}" for number in range(60)]
WORKERS = 6


def body(chunk_id: str, version: int) -> bytes:
    rng = random.Random(f"{chunk_id} {version}")
    size = rng.choice((1, 5000, 4096, 70_000, 300_000, MAX_CHUNK_BYTES))
    return rng.randbytes(size)


def promise(chunk_id: str, version: int) -> AcceptorState:
    return AcceptorState(Instance(chunk_id, 0, Config(1, ("n",))), version, version, f"{version}".encode())


async def open_victim(directory: Path) -> DiskEngine:
    return await open_engine(directory, superblock_bytes=SUPERBLOCK_BYTES, capacity_bytes=CAPACITY_BYTES, io_threads=3)


def run(directory: str, pipe: int, seed: int, base: int) -> None:
    """Until killed. Versions start from `base`, so that they only ever rise."""
    with contextlib.suppress(DiskError):  # the disk may go first
        asyncio.run(_run(Path(directory), pipe, random.Random(seed), base))


async def _run(directory: Path, pipe: int, rng: random.Random, base: int) -> None:
    engine = await open_victim(directory)
    mine = [IDS[worker::WORKERS] for worker in range(WORKERS)]
    await asyncio.gather(*(_work(engine, pipe, random.Random(rng.random()), ids, base) for ids in mine))


async def _work(engine: DiskEngine, pipe: int, rng: random.Random, ids: list[str], base: int) -> None:
    version = base
    while True:
        version += 1
        chunk_id = rng.choice(ids)
        if await engine.head(chunk_id) is not None and rng.random() < 0.8:
            _say(pipe, f"B {chunk_id} chunk -")
            await engine.delete(chunk_id)
            _say(pipe, f"A {chunk_id} chunk -")
        elif rng.random() < 0.3:
            _say(pipe, f"B {chunk_id} state {version}")
            with contextlib.suppress(StorageFullError):
                await engine.journal([promise(chunk_id, version)])
                _say(pipe, f"A {chunk_id} state {version}")
        elif await engine.head(chunk_id) is None:
            await _put(engine, pipe, chunk_id, version)


async def _put(engine: DiskEngine, pipe: int, chunk_id: str, version: int) -> None:
    data = body(chunk_id, version)
    async with engine.buffer() as buffer:
        buffer.payload[: len(data)] = data
        _say(pipe, f"B {chunk_id} chunk {version}")
        try:
            await engine.put(chunk_id, buffer, len(data))
        except StorageFullError:
            _say(pipe, f"A {chunk_id} chunk -")
        else:
            _say(pipe, f"A {chunk_id} chunk {version}")


def _say(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())
