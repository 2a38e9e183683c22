#!/usr/bin/env python3
"""Print what the storage engine does by itself, without HTTP: durable PUTs and verified GETs of full chunks.

Beside every figure stands the same work done by plain calls in the same run: for PUT, SHA-256, pwrite with O_DIRECT and
an fdatasync of its own for each object; for GET, pread with O_DIRECT, without verification. The plain file was written
before, so its PUTs are overwrites.
"""

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from vstack.storage.directio import aligned_buffer
from vstack.storage.engine import DiskEngine, open_engine
from vstack.units import MAX_CHUNK_BYTES, MIB

OBJECTS = 96
ROUNDS = 5


async def in_flight(count: int, connections: int, work: Callable[[int], Awaitable[None]]) -> float:
    """Seconds for `count` calls, so many at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    return time.perf_counter() - started


class Plain:
    """The same work without an engine: one file, one thread pool."""

    def __init__(self, path: Path, threads: int) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        os.posix_fallocate(self.file, 0, OBJECTS * MAX_CHUNK_BYTES)
        self.threads = ThreadPoolExecutor(threads)
        self.buffers = [aligned_buffer(MAX_CHUNK_BYTES) for _ in range(32)]
        self.buffers[0][:] = os.urandom(MAX_CHUNK_BYTES)
        for number in range(OBJECTS):
            os.pwrite(self.file, self.buffers[0], number * MAX_CHUNK_BYTES)
        os.fdatasync(self.file)

    async def put(self, number: int) -> None:
        def write() -> None:
            hashlib.sha256(self.buffers[0]).digest()
            os.pwritev(self.file, [self.buffers[0]], number * MAX_CHUNK_BYTES)
            os.fdatasync(self.file)

        await asyncio.get_running_loop().run_in_executor(self.threads, write)

    async def get(self, number: int) -> None:
        buffer = self.buffers[number % 32]
        await asyncio.get_running_loop().run_in_executor(
            self.threads, os.preadv, self.file, [buffer], number * MAX_CHUNK_BYTES
        )


async def put_round(engine: DiskEngine, prefix: str, connections: int, body: bytes) -> float:
    async def put(number: int) -> None:
        async with engine.buffer() as buffer:
            buffer.payload[:] = body
            await engine.put(f"{prefix}-chunk-{number:03d}", buffer, MAX_CHUNK_BYTES)

    return await in_flight(OBJECTS, connections, put)


async def get_round(engine: DiskEngine, prefix: str, connections: int) -> float:
    async def get(number: int) -> None:
        async with engine.get(f"{prefix}-chunk-{number:03d}"):
            pass

    return await in_flight(OBJECTS, connections, get)


async def measure(directory: Path, threads: int) -> None:
    engine = await open_engine(directory / "engine", superblock_bytes=256 * MIB, io_threads=threads)
    plain = Plain(directory / "plain", threads)
    body = os.urandom(MAX_CHUNK_BYTES)
    print(f"{OBJECTS} objects of 2 MiB a round, median of {ROUNDS} interleaved rounds, {threads} I/O threads")
    print(f"{'':6}{'in flight':>10}{'MB/s':>10}{'plain':>10}{'ratio':>8}{'flushes/PUT':>13}")
    for connections in (1, 8, 32):
        ours: list[float] = []
        theirs: list[float] = []
        before = engine.counters()
        for number in range(ROUNDS):
            ours.append(await put_round(engine, f"p{connections}-{number}", connections, body))
            theirs.append(await in_flight(OBJECTS, connections, plain.put))
        after = engine.counters()
        flushes = (after.flushes - before.flushes) / (after.flushed_writes - before.flushed_writes)
        report("PUT", connections, ours, theirs, f"{flushes:13.2f}")
    for connections in (1, 8, 32):
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(await get_round(engine, f"p{connections}-{number}", connections))
            theirs.append(await in_flight(OBJECTS, connections, plain.get))
        report("GET", connections, ours, theirs, "")
    await engine.close()
    plain.threads.shutdown()
    os.close(plain.file)


def report(what: str, connections: int, ours: list[float], theirs: list[float], flushes: str) -> None:
    total = OBJECTS * MAX_CHUNK_BYTES / 1e6
    one, other = total / statistics.median(ours), total / statistics.median(theirs)
    print(f"{what:6}{connections:10}{one:10.0f}{other:10.0f}{one / other:8.2f}{flushes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where to make the temporary data directory")
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        uvloop.run(measure(Path(directory), options.threads))


if __name__ == "__main__":
    main()
