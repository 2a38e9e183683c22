"""The power is cut behind every change of a scripted life, and what was volatile fares in every telling way."""

import logging
import random

import pytest

from tests.storage.engine.history import Found, History, check
from tests.storage.engine.simulation import Create, Cutter, Replace, SimulatedDisk, Sync, Write
from tests.storage.engine.workload import live
from vstack.core.superblock.header import MAGIC
from vstack.storage.engine.recovery import SNAPSHOT_NAME

log = logging.getLogger(__name__)


async def lived() -> History:
    history = History(SimulatedDisk())
    await live(history)
    return history


def cut_everywhere(history: History, *, every: int, samples: int, seed: int) -> int:
    """The number of cuts that were checked: before each change that is no write, when most is at stake, and others."""
    rng = random.Random(seed)
    cutter = Cutter(SimulatedDisk().image)
    cuts = 0
    for count, change in enumerate(history.disk.journal):
        telling = not isinstance(change, Write) or count % every == 0
        for keep in cutter.variants(rng, samples=samples) if telling else ():
            check(history, Found(SimulatedDisk(cutter.image(keep))), count)
            cuts += 1
        cutter.advance(change)
    return cuts


async def test_the_workload_does_everything() -> None:
    history = await lived()
    journal = history.disk.journal
    assert all(event.end is not None for event in history.events)
    reborn = [change for change in journal if isinstance(change, Write) and change.page == 0 and change.data[14] == 1]
    assert reborn, "nothing was recycled"
    sealed = [change for change in journal if isinstance(change, Write) and change.page == 0 and change.data[14] == 3]
    assert len(sealed) >= 4
    assert sum(isinstance(change, Replace) and change.name == SNAPSHOT_NAME for change in journal) >= 4
    assert any(isinstance(change, Create) for change in journal)
    assert any(isinstance(change, Sync) for change in journal)
    assert all(change.data.startswith(MAGIC) for change in sealed)


async def test_a_power_cut_loses_nothing_acknowledged() -> None:
    seed = random.randrange(1 << 32)
    log.warning("seed %d", seed)
    assert cut_everywhere(await lived(), every=25, samples=1, seed=seed) > 500


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_power_cut_behind_every_change() -> None:
    seed = random.randrange(1 << 32)
    log.warning("seed %d", seed)
    assert cut_everywhere(await lived(), every=1, samples=6, seed=seed) > 10_000
