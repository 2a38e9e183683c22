"""kill -9 at random moments of a real process on a real directory: what was acknowledged is served afterwards.

A kill keeps what the process wrote, so this finds wrong order and wrong recovery; power cuts are test_crashes.py.
"""

import logging
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.engine import victim
from vstack.errors import NotFoundError
from vstack.storage.engine import DiskEngine

KILLS = 200
LONGEST_LIFE_S = 0.15
START_DEADLINE_S = 20.0

log = logging.getLogger(__name__)


class Ledger:
    """What may be there, by (chunk id, kind): the last acknowledged version and those begun since."""

    def __init__(self) -> None:
        self.acknowledged: dict[tuple[str, str], str] = {}
        self.begun: dict[tuple[str, str], set[str]] = {}

    def read(self, report: bytes) -> int:
        """Take what one victim said; the number of acknowledgements."""
        count = 0
        for line in report.decode().splitlines():
            word, chunk_id, kind, version = line.split(" ")
            key = chunk_id, kind
            if word == "B":
                self.begun.setdefault(key, set()).add(version)
            else:
                self.acknowledged[key] = version
                self.begun.pop(key, None)
                count += 1
        return count

    def allowed(self, chunk_id: str, kind: str) -> set[str]:
        key = chunk_id, kind
        return {self.acknowledged.get(key, "-"), *self.begun.get(key, ())}

    def settle(self, chunk_id: str, kind: str, version: str) -> None:
        """It was found to be this: from now on it must stay."""
        self.acknowledged[chunk_id, kind] = version
        self.begun.pop((chunk_id, kind), None)


async def check(engine: DiskEngine, ledger: Ledger) -> None:
    for chunk_id in victim.IDS:
        try:
            async with engine.get(chunk_id) as reading:
                found = {
                    version
                    for version in ledger.allowed(chunk_id, "chunk") - {"-"}
                    if reading.payload == victim.body(chunk_id, int(version))
                }
                assert found, f"{chunk_id} has bytes that nobody put, of {reading.info.size_bytes}"
        except NotFoundError:
            found = {"-"}
            assert "-" in ledger.allowed(chunk_id, "chunk"), f"{chunk_id} is lost"
        ledger.settle(chunk_id, "chunk", found.pop())
        state = await engine.acceptor(chunk_id, 0)
        promised = "-" if state is None else str(state.promised)
        assert promised in ledger.allowed(chunk_id, "state"), f"{chunk_id} promised {promised}"
        assert state in (None, victim.promise(chunk_id, 0 if state is None else state.promised))
        ledger.settle(chunk_id, "state", promised)


def live_and_die(
    directory: Path,
    seed: int,
    base: int,
    life_s: float,
    *,
    open_first: bool = True,
    last: Callable[[], None] = lambda: None,
) -> bytes:
    """Start a victim, kill it so long after its start, or after its first write began, and return what it had said.

    `last` happens right before the kill.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.storage.engine.victim"])
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_victim, args=(str(directory), writing, seed, base), daemon=True)
    process.start()
    writing.close()
    os.set_blocking(reading.fileno(), False)
    said = bytearray()
    deadline = time.monotonic() + START_DEADLINE_S
    while open_first and not said and time.monotonic() < deadline:
        said += _drain(reading.fileno())
        time.sleep(0.001)
    end = time.monotonic() + life_s
    while time.monotonic() < end:
        said += _drain(reading.fileno())
        time.sleep(0.001)
    last()
    process.kill()
    process.join()
    said += _drain(reading.fileno())
    reading.close()
    return bytes(said[: said.rfind(b"\n") + 1])


def _victim(directory: str, pipe: object, seed: int, base: int) -> None:
    victim.run(directory, pipe.fileno(), seed, base)  # type: ignore[attr-defined]


def _drain(descriptor: int) -> bytes:
    said = bytearray()
    try:
        while piece := os.read(descriptor, 1 << 16):
            said += piece
    except BlockingIOError:
        pass
    return bytes(said)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
async def test_hundreds_of_kills(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    log.warning("seed %d", seed)
    rng = random.Random(seed)
    ledger = Ledger()
    acknowledged = 0
    for kill in range(KILLS):
        life_s = rng.uniform(0.0, LONGEST_LIFE_S)
        victim_seed, base, open_first = rng.randrange(1 << 32), kill * 100_000, rng.random() < 0.7
        acknowledged += ledger.read(live_and_die(tmp_path, victim_seed, base, life_s, open_first=open_first))
        if kill % 4 == 3:  # else the next victim recovers from what this one left
            engine = await victim.open_victim(tmp_path)
            try:
                await check(engine, ledger)
            finally:
                await engine.close()
    log.warning("%d kills, %d acknowledgements", KILLS, acknowledged)
    assert acknowledged > 5 * KILLS
