"""Asks late nodes whether they live, before anybody calls them down.

One instance does it at a time. What it finds is a column in Postgres, so that all instances agree.
"""

import asyncio
from typing import Final

import structlog

from vstack.errors import VStackError
from vstack.metadata.catalogue import nodes
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock
from vstack.rpc.storage import StorageClient

INTERVAL_S: Final = 5.0
MAX_CONCURRENT: Final = 16
TIMEOUT_S: Final = 2.0

log = structlog.get_logger()


class Prober:
    """The job of one instance."""

    def __init__(self, db: Database, storage: StorageClient) -> None:
        self._db = db
        self._storage = storage
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def run_once(self) -> None:
        """Probe every late node once, unless another instance is at it."""
        late = [node for node in await nodes.all_nodes(self._db) if node.late]
        if not late:
            return
        async with self._db.exclusively(Lock.PROBE) as ours:
            if ours:
                alive = await asyncio.gather(*(self._lives(node) for node in late))
                await nodes.note_probes(
                    self._db, [node.node_key for node, lives in zip(late, alive, strict=True) if lives]
                )

    async def _lives(self, node: StorageNode) -> bool:
        async with self._slots:
            try:
                pong = await self._storage.ping(node.url, timeout_s=TIMEOUT_S)
            except VStackError as error:
                log.info("node_silent", node_id=node.node_id, error=str(error))
                return False
        return pong.node_id == node.node_id
