"""A small engine on a simulated disk, reopened at will."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.storage.engine.simulation import SimulatedDisk
from tests.storage.engine.workload import LIMITS, SUPERBLOCK_BYTES, open_simulated
from vstack.core.paxos.acceptor import AcceptorState
from vstack.core.superblock.layout import unpack
from vstack.storage.contract import PutOutcome
from vstack.storage.engine import DiskEngine
from vstack.storage.engine.superblocks import name_of
from vstack.storage.engine.upkeep import Limits


@dataclass
class Node:
    """An engine and the disk below it."""

    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    limits: Limits = LIMITS
    opened: DiskEngine | None = None
    opens: int = 0

    @property
    def engine(self) -> DiskEngine:
        assert self.opened is not None
        return self.opened

    async def open(self) -> DiskEngine:
        self.opens += 1
        self.opened = await open_simulated(self.disk, limits=self.limits, seed=self.opens)
        return self.opened

    async def close(self) -> None:
        if self.opened is not None:
            await self.opened.close()
            self.opened = None

    async def reopen(self) -> DiskEngine:
        await self.close()
        return await self.open()

    async def cut_power(self) -> DiskEngine:
        """What was flushed and nothing else; the engine that ran does not get to say goodbye."""
        survivor = self.disk.after_cut(len(self.disk.journal), lambda index, write: 0)
        await self.close()
        self.disk = survivor
        return await self.open()

    async def put(
        self,
        chunk_id: str,
        payload: bytes,
        *,
        expected_checksum: str | None = None,
        acceptance: AcceptorState | None = None,
        fragment_index: int = -1,
        epoch: int = 0,
    ) -> PutOutcome:
        async with self.engine.buffer() as buffer:
            buffer.payload[: len(payload)] = payload
            return await self.engine.put(
                chunk_id,
                buffer,
                len(payload),
                expected_checksum=expected_checksum,
                acceptance=acceptance,
                fragment_index=fragment_index,
                epoch=epoch,
            )

    async def get(self, chunk_id: str) -> bytes:
        async with self.engine.get(chunk_id) as reading:
            return bytes(reading.payload)

    def place(self, chunk_id: str) -> tuple[str, int]:
        """The file name and offset of a chunk's record."""
        catalogue = self.engine._volume.catalogue
        (location,) = catalogue.chunks.find(catalogue.hash(chunk_id))
        return self.named(location)

    def place_of_acceptor(self, chunk_id: str) -> tuple[str, int]:
        catalogue = self.engine._volume.catalogue
        (location,) = catalogue.acceptors.find(catalogue.hash(chunk_id))
        return self.named(location)

    @staticmethod
    def named(location: int) -> tuple[str, int]:
        where = unpack(location)
        return name_of(where.slot), where.offset


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    await node.open()
    yield node
    await node.close()


@pytest.fixture
async def small() -> AsyncIterator[Node]:
    """Six superblocks and no more."""
    node = Node(limits=Limits(SUPERBLOCK_BYTES, 6 * SUPERBLOCK_BYTES))
    await node.open()
    yield node
    await node.close()
