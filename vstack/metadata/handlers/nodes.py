"""HTTP of storage nodes: decode, call, encode."""

from collections.abc import Iterable

import msgspec
from aiohttp import web

from vstack.ids import Identifier
from vstack.metadata.catalogue import nodes
from vstack.metadata.catalogue.nodes import StorageNode
from vstack.metadata.state import METADATA
from vstack.wire import metadata as wire
from vstack.wire.common import timestamp


async def healthy_nodes(request: web.Request) -> tuple[wire.NodeSummary, ...]:
    """Nodes whose heartbeat is punctual and whose disk is well."""
    return _summaries(node for node in await nodes.all_nodes(request.app[METADATA].db) if node.status == "healthy")


async def all_nodes(request: web.Request) -> wire.NodeList:
    """Every node."""
    known = await nodes.all_nodes(request.app[METADATA].db)
    return wire.NodeList(nodes=_summaries(node for node in known if not node.superseded))


async def health_summary(request: web.Request) -> wire.HealthSummary:
    """How many nodes are in which state."""
    counts = nodes.counts(await nodes.all_nodes(request.app[METADATA].db))
    return wire.HealthSummary(healthy=counts["healthy"], degraded=counts["degraded"], down=counts["down"])


async def register_node(
    request: web.Request, *, query: wire.NodeRegistration, body: wire.NodeRegistration | None
) -> wire.NodeRegistered:
    """Register a node, by query parameters or a JSON body; the body wins."""
    node_id, url = await nodes.register(request.app[METADATA].db, _merged(query, body))
    return wire.NodeRegistered(status="registered", node_id=node_id, node_url=url)


async def heartbeat(request: web.Request, *, node_id: Identifier, body: wire.Heartbeat) -> wire.Acknowledged:
    """Take a node's sign of life."""
    await nodes.heartbeat(request.app[METADATA].db, node_id, body)
    return wire.Acknowledged(status="ok", message=f"Heartbeat updated for node {node_id}")


def _merged(query: wire.NodeRegistration, body: wire.NodeRegistration | None) -> wire.NodeRegistration:
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None} if body else {}
    return msgspec.structs.replace(query, **given)


def _summaries(known: Iterable[StorageNode]) -> tuple[wire.NodeSummary, ...]:
    return tuple(
        wire.NodeSummary(
            node_url=node.url,
            node_id=node.node_id,
            last_heartbeat=None if node.last_heartbeat is None else timestamp(node.last_heartbeat),
            disk_usage_percent=node.disk_usage_percent,
            chunk_count=node.chunk_count,
            status=node.status,
            version=node.version,
            host=node.host,
            zone=node.zone,
            capacity_bytes=node.capacity_bytes,
        )
        for node in known
    )
