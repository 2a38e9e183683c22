"""Pings every node that a plan names, every 3 s, and writes what it learns into the node table."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from vstack.core.playback.scoring import NodeTable
from vstack.errors import VStackError
from vstack.rpc.storage import StorageClient

PING_INTERVAL_S: Final = 3.0
PING_TIMEOUT_S: Final = 2.0
PING_JITTER: Final = 0.1
FIRST_PING_WITHIN_S: Final = 0.5
MAX_CONCURRENT_PINGS: Final = 16


class NodeMonitor:
    """Keeps `nodes` to those that `named` returns, and their latencies and reachability fresh, while `run` runs.

    Rounds are jittered, so that many clients that started together do not ping together.
    """

    def __init__(
        self,
        storage: StorageClient,
        nodes: NodeTable,
        named: Callable[[], frozenset[str]],
        *,
        interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self._storage = storage
        self._nodes = nodes
        self._named = named
        self._interval_s = interval_s
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_PINGS)

    async def run(self) -> None:
        """Ping until cancelled."""
        await asyncio.sleep(random.uniform(0, min(FIRST_PING_WITHIN_S, self._interval_s)))  # noqa: S311
        while True:
            started = time.monotonic()
            self._nodes.keep(self._named())
            async with asyncio.TaskGroup() as pings:
                for node in self._nodes.known:
                    pings.create_task(self._ping(node))
            interval_s = self._interval_s * random.uniform(1 - PING_JITTER, 1 + PING_JITTER)  # noqa: S311
            await asyncio.sleep(max(0.0, started + interval_s - time.monotonic()))

    async def _ping(self, node: str) -> None:
        async with self._slots:
            sent = time.monotonic()
            try:
                await self._storage.ping(node, timeout_s=PING_TIMEOUT_S)
            except (VStackError, ValueError):  # ValueError: a header that is no number
                self._nodes.ping_failed(node)
            else:
                self._nodes.ponged(node, (time.monotonic() - sent) * 1000)
