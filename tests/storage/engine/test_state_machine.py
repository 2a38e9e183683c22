"""A hypothesis state machine: any writes, restarts, power cuts at any moment, failing flushes, full disks."""

import asyncio
import random
from collections.abc import Coroutine
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.storage.engine.history import Event, Found, History, check
from tests.storage.engine.simulation import ALL, SimulatedDisk, Write
from tests.storage.engine.workload import SUPERBLOCK_BYTES, data, name, open_simulated, state
from vstack.core.superblock.layout import DATA_OFFSET, FOOTER_BYTES, PAGE_BYTES
from vstack.errors import ConflictError, DiskError, NotFoundError, StorageFullError
from vstack.storage.contract import DiskState
from vstack.storage.engine import DiskEngine
from vstack.storage.engine.upkeep import Limits
from vstack.units import KIB

LIMITS = Limits(SUPERBLOCK_BYTES, 7 * SUPERBLOCK_BYTES, snapshot_every_bytes=200 * KIB)
T = TypeVar("T")

numbers = st.integers(0, 9)
sizes = st.integers(1, 15)
ballots = st.integers(0, 3).map(lambda round_number: round_number << 16)


class EngineMachine(RuleBasedStateMachine):
    @initialize()
    def format(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.seed = 0
        self.history = History(SimulatedDisk())
        self.engine = self._open()

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    def _open(self) -> DiskEngine:
        self.seed += 1
        return self._run(open_simulated(self.history.disk, limits=LIMITS, seed=self.seed))

    async def _attempt(self, work: Coroutine[object, object, None]) -> None:
        """A refusal leaves nothing behind; a disk error may or may not."""
        known, states = list(self.history.events), dict(self.history.states)
        try:
            await work
        except (ConflictError, StorageFullError, NotFoundError, AssertionError):
            new = self.history.events[-1]
            assert new not in known
            self.history.events.remove(new)
            self.history.states = states
        except DiskError:
            assert self.engine.usage().state is DiskState.READ_ONLY

    @rule(number=numbers, pages=sizes)
    def put(self, number: int, pages: int) -> None:
        self._run(self._attempt(self.history.put(self.engine, name(number), data(number, pages))))

    @rule(number=numbers, pages=sizes)
    def put_with_acceptance(self, number: int, pages: int) -> None:
        put = self.history.put(self.engine, name(number), data(number, pages), state(name(number)))
        self._run(self._attempt(put))

    @rule(first=st.integers(10, 90), count=st.integers(2, 12), pages=sizes)
    def put_many(self, first: int, count: int, pages: int) -> None:
        async def put() -> None:
            for number in range(first, first + count):
                await self._attempt(self.history.put(self.engine, name(number), data(number, pages)))

        self._run(put())

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self._run(self._attempt(self.history.delete(self.engine, name(number))))

    @rule()
    def delete_most(self) -> None:
        async def delete() -> None:
            rows, _ = await self.engine.chunks(None, 1000)
            for row in rows[:-1]:
                await self._attempt(self.history.delete(self.engine, row.chunk_id))

        self._run(delete())

    @rule(number=numbers, ballot=ballots, epoch=st.integers(0, 2), kind=st.sampled_from(["accept", "learn", "retire"]))
    def journal(self, number: int, ballot: int, epoch: int, kind: str) -> None:
        new = state(name(number), ballot, epoch=epoch, learned=kind == "learn", retired=kind == "retire")
        self._run(self._attempt(self.history.journal(self.engine, new)))

    @rule()
    def reopen(self) -> None:
        self._run(self.engine.close())
        self.engine = self._open()

    @rule(back=st.integers(0, 120), seed=st.integers(0, 1 << 32))
    def cut_power(self, back: int, seed: int) -> None:
        """At any moment since the disk was opened; the future that was not is forgotten."""
        rng = random.Random(seed)
        kept = rng.choice((0.0, 0.5, 0.9, 1.0))

        def keep(_index: int, _write: Write) -> int:
            return rng.randrange(ALL) if rng.random() < 0.1 else ALL if rng.random() < kept else 0

        disk = self.history.disk
        changes = max(0, len(disk.journal) - back)
        survivor = disk.after_cut(changes, keep)
        found = Found(SimulatedDisk(survivor.image.copy()))
        check(self.history, found, changes)
        self._run(self.engine.close())
        self._continue_on(survivor, found)

    @rule(successes=st.integers(0, 4))
    def break_flushes(self, successes: int) -> None:
        self.history.disk.fail["fdatasync"] = successes

    @precondition(lambda self: self.engine.usage().state is DiskState.READ_ONLY)
    @rule()
    def replace_the_cable(self) -> None:
        """The operator checks the disk and removes the mark."""
        disk = self.history.disk
        self._run(self.engine.close())
        disk.fail.clear()
        disk.remove("read-only")
        found = Found(SimulatedDisk(disk.image.copy()))
        check(self.history, found, len(disk.journal))
        self._continue_on(SimulatedDisk(disk.image.copy()), found)

    def _continue_on(self, disk: SimulatedDisk, found: Found) -> None:
        values = {register: found.value(register) for register in self.history.registers()}
        self.history = History(disk)
        self.history.events = [Event({register: value}, -1, 0) for register, value in values.items()]
        self.history.states = {
            chunk_id: value
            for (kind, chunk_id), value in values.items()
            if kind == "states" and isinstance(value, frozenset)
        }
        self.engine = self._open()

    @invariant()
    def what_was_acknowledged_is_served(self) -> None:
        async def served() -> None:
            for kind, chunk_id in self.history.registers():
                allowed = self.history.allowed((kind, chunk_id), len(self.history.disk.journal))
                if kind == "chunk":
                    try:
                        async with self.engine.get(chunk_id) as reading:
                            assert bytes(reading.payload) in allowed
                    except NotFoundError:
                        assert None in allowed

        if hasattr(self, "engine"):
            self._run(served())

    @invariant()
    def the_listing_is_the_index(self) -> None:
        async def listed() -> None:
            rows, after = await self.engine.chunks(None, 3)
            while after is not None:
                more, after = await self.engine.chunks(after, 3)
                rows += more
            usage = self.engine.usage()
            assert len({row.chunk_id for row in rows}) == len(rows) == usage.chunk_count
            assert usage.live_bytes <= usage.capacity_bytes + 3 * SUPERBLOCK_BYTES
            assert 0 <= usage.used_bytes <= usage.capacity_bytes
            for superblock in self.engine._volume.catalogue.superblocks.values():
                assert DATA_OFFSET <= superblock.append_offset <= SUPERBLOCK_BYTES - FOOTER_BYTES
                assert superblock.append_offset % PAGE_BYTES == 0

        if hasattr(self, "engine"):
            self._run(listed())

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self._run(self.engine.close())
            self.loop.close()


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=25, stateful_step_count=25)
