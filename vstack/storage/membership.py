"""This node's place in the cluster: registers with the metadata service and keeps saying that it is alive.

Invariants: serving never waits for the metadata service; a database that has lost this node gets it back with the next
beat; a node whose id belongs to another disk or a newer process stops, because two of a kind would break quorums.
"""

import asyncio
from collections.abc import Callable

import structlog

from vstack import __version__
from vstack.errors import ConflictError, NotFoundError, VStackError
from vstack.rpc.metadata import MetadataClient
from vstack.storage.contract import Engine
from vstack.units import HEARTBEAT_INTERVAL_S
from vstack.wire.metadata import Heartbeat, NodeRegistration

log = structlog.get_logger()


class Membership:
    """One task that runs for as long as the node serves. `on_fenced` ends the node."""

    def __init__(
        self,
        metadata: MetadataClient,
        engine: Engine,
        *,
        public_url: str,
        host_id: str,
        zone: str,
        on_fenced: Callable[[VStackError], None],
        interval_s: float = HEARTBEAT_INTERVAL_S,
    ) -> None:
        self._metadata = metadata
        self._engine = engine
        self._public_url = public_url
        self._host_id = host_id
        self._zone = zone
        self._on_fenced = on_fenced
        self._interval_s = interval_s
        self._registered = False
        self._failing = False

    async def run(self) -> None:
        """Register, then beat, until cancelled or fenced."""
        while True:
            try:
                await self._beat()
                self._failing = False
            except ConflictError as error:
                log.critical("fenced", node_id=self._engine.identity.node_id, error=str(error))
                self._on_fenced(error)
                return
            except VStackError as error:
                self._report(error)
            except Exception:
                log.exception("membership_failed")
            await asyncio.sleep(self._interval_s)

    async def _beat(self) -> None:
        if not self._registered:
            await self._register()
        try:
            await self._heartbeat()
        except NotFoundError:
            log.warning("forgotten_by_metadata")
            await self._register()
            await self._heartbeat()

    async def _register(self) -> None:
        identity = self._engine.identity
        self._registered = False
        await self._metadata.register_node(
            NodeRegistration(
                node_url=self._public_url,
                node_id=identity.node_id,
                version=__version__,
                host=self._host_id,
                zone=self._zone,
                capacity_bytes=self._engine.usage().capacity_bytes,
                disk_uuid=identity.disk_uuid,
                incarnation=identity.incarnation,
            )
        )
        self._registered = True
        log.info("registered", node_id=identity.node_id, url=self._public_url)

    async def _heartbeat(self) -> None:
        identity, usage = self._engine.identity, self._engine.usage()
        beat = Heartbeat(
            disk_usage_percent=usage.used_percent,
            chunk_count=usage.chunk_count,
            disk_status=usage.state.value,
            capacity_bytes=usage.capacity_bytes,
            incarnation=identity.incarnation,
        )
        await self._metadata.heartbeat(identity.node_id, beat)

    def _report(self, error: VStackError) -> None:
        """Once per outage."""
        if not self._failing:
            log.warning("metadata_unreachable", code=error.code, error=str(error))
        self._failing = True
