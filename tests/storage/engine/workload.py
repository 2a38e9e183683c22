"""A scripted life of a small disk: puts, acceptances, deletes, seals, recycling, snapshots, restarts."""

import asyncio
import random

from tests.storage.engine.history import History
from tests.storage.engine.simulation import SimulatedDisk, inline_threads
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Instance
from vstack.core.superblock.layout import PAGE_BYTES
from vstack.storage.engine import DiskEngine, Sources, open_on
from vstack.storage.engine.upkeep import Limits
from vstack.units import KIB

SUPERBLOCK_BYTES = 512 * KIB
LIMITS = Limits(SUPERBLOCK_BYTES, 0, snapshot_every_bytes=160 * KIB)
CONFIG = Config(7, ("n", "o", "p"))


async def open_simulated(disk: SimulatedDisk, *, limits: Limits = LIMITS, seed: int = 0) -> DiskEngine:
    rng = random.Random(seed)
    sources = Sources(clock_ms=lambda: 1_700_000_000_000, random_bytes=rng.randbytes)
    return await open_on(disk, inline_threads(), limits, node_id="n", sources=sources)


def state(
    chunk_id: str, ballot: int = 0, *, epoch: int = 0, learned: bool = False, retired: bool = False
) -> AcceptorState:
    value = None if retired else f"value of {chunk_id} at {ballot}".encode()
    accepted = -1 if retired else ballot
    return AcceptorState(Instance(chunk_id, epoch, CONFIG), accepted, accepted, value, learned, retired)


def name(number: int) -> str:
    return f"v-chunk-{number:03d}"


def data(number: int, pages: int) -> bytes:
    """Bytes that tell their chunk and position, a little short of whole pages."""
    text = f"{name(number)} ".encode()
    return (text * (pages * PAGE_BYTES // len(text) + 1))[: pages * PAGE_BYTES - 17]


async def live(history: History, *, scale: int = 1) -> None:
    """Two runs of an engine with a clean restart between; every kind of write, alone and together."""
    disk = history.disk
    engine = await open_simulated(disk, seed=1)
    await history.put(engine, name(0), data(0, 3), state(name(0)))
    await asyncio.gather(
        *(history.put(engine, name(n), data(n, n % 4 + 1), state(name(n))) for n in range(1, 6 * scale))
    )
    await history.journal(engine, *(state(name(n), learned=True) for n in range(3)))
    await asyncio.gather(history.delete(engine, name(1)), history.put(engine, name(100), data(100, 12)))
    for n in range(101, 112):
        await history.put(engine, name(n), data(n, 9))
    await asyncio.gather(*(history.delete(engine, name(n)) for n in range(100, 110)))
    await history.put(engine, name(1), data(1, 5), state(name(4), 1 << 16))
    await engine.close()

    engine = await open_simulated(disk, seed=2)
    await asyncio.gather(
        history.put(engine, name(200), data(200, 9)), history.journal(engine, state(name(3), retired=True))
    )
    await history.delete(engine, name(1))
    await asyncio.gather(*(history.put(engine, name(n), data(n, 9)) for n in (201, 202, 203)))
    await asyncio.gather(*(history.delete(engine, name(n)) for n in (110, 111, 200, 201)))
    await history.journal(engine, state(name(0), epoch=1, learned=True), state(name(2), 2 << 16, epoch=1))
    for n in range(205, 210 + 5 * scale):
        await history.put(engine, name(n), data(n, 9))
    await engine.close()
