"""Storage nodes: registration, fencing, heartbeats, and what they say about a node's status.

Invariants
- A node id belongs to one disk and one process: another disk under the same id, or an older incarnation, is refused.
- A URL belongs to the node that registered it last; who had it before is superseded, counts as down, and must register
  anew.
- Registering again keeps history.
"""

import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vstack import __version__
from vstack.core.placement import Node
from vstack.errors import ConflictError, InvalidRequestError, NotFoundError
from vstack.metadata.postgres import database, statements
from vstack.metadata.postgres.database import Database
from vstack.metadata.postgres.locks import Lock
from vstack.units import GIB, HEARTBEAT_DOWN_S, HEARTBEAT_LATE_S
from vstack.wire.metadata import Heartbeat, NodeRegistration, NodeStatus

STATUSES: Final[tuple[NodeStatus, ...]] = ("healthy", "degraded", "down")
"""From best to worst."""

_SQL = statements.load("nodes")


def status_of(
    *, heartbeat_age_s: float | None, probe_age_s: float | None, disk_status: str, superseded: bool
) -> NodeStatus:
    """A node's status: late heartbeats and troubled disks degrade it; no sign of life for HEARTBEAT_DOWN_S is down.

    A probe that reached the node counts as life, but does not make a late heartbeat punctual.
    """
    ages = [age for age in (heartbeat_age_s, probe_age_s) if age is not None]
    if superseded or not ages or min(ages) > HEARTBEAT_DOWN_S:
        return "down"
    if heartbeat_age_s is None or heartbeat_age_s > HEARTBEAT_LATE_S or disk_status != "healthy":
        return "degraded"
    return "healthy"


@dataclass(frozen=True, slots=True)
class StorageNode:
    """A row of `nodes`, with ages by the database's clock at the time of the query."""

    node_key: int
    node_id: str
    url: str
    superseded: bool
    host: str
    zone: str
    version: str
    capacity_bytes: int
    disk_uuid: str | None
    incarnation: int
    disk_usage_percent: float
    chunk_count: int
    disk_status: str
    last_heartbeat: datetime | None
    heartbeat_age_s: float | None
    probe_age_s: float | None

    @property
    def status(self) -> NodeStatus:
        return status_of(
            heartbeat_age_s=self.heartbeat_age_s,
            probe_age_s=self.probe_age_s,
            disk_status=self.disk_status,
            superseded=self.superseded,
        )

    @property
    def late(self) -> bool:
        """Whether the node has missed heartbeats and should be asked whether it lives."""
        return not self.superseded and (self.heartbeat_age_s is None or self.heartbeat_age_s > HEARTBEAT_LATE_S)


@dataclass(frozen=True, slots=True)
class _Fence:
    disk_uuid: str | None
    incarnation: int
    registered: bool


async def all_nodes(db: Database) -> list[StorageNode]:
    """Every node ever registered, by id."""
    return await db.rows(_SQL["all"], StorageNode)


def counts(nodes: Iterable[StorageNode]) -> dict[NodeStatus, int]:
    """How many nodes have each status; superseded ones are history and not counted."""
    found: dict[NodeStatus, int] = dict.fromkeys(STATUSES, 0)
    for node in nodes:
        if not node.superseded:
            found[node.status] += 1
    return found


def members(nodes: Sequence[StorageNode]) -> tuple[Node, ...]:
    """The nodes that are not down as placement sees them: weighted by capacity, an unknown capacity as the mean."""
    alive = [node for node in nodes if node.status != "down"]
    known = [node.capacity_bytes / GIB for node in alive if node.capacity_bytes > 0]
    mean = sum(known) / len(known) if known else 1.0
    return tuple(
        Node(node.node_id, node.host, node.capacity_bytes / GIB if node.capacity_bytes > 0 else mean, node.zone)
        for node in alive
    )


async def register(db: Database, registration: NodeRegistration) -> tuple[str, str]:
    """Insert or refresh a node; returns its (id, URL). InvalidRequestError, ConflictError where it is fenced off."""
    node_id, url = registration.node_id, registration.node_url
    if node_id is None or url is None:
        raise InvalidRequestError("node_url and node_id are required")
    async with db.transaction() as connection:
        await database.hold(connection, Lock.REGISTRATION)
        fence = await database.row(connection, _SQL["fence"], _Fence, {"node_id": node_id})
        if fence is not None:
            _check_fence(node_id, fence, registration)
        await connection.execute(_SQL["supersede"], {"url": url, "node_id": node_id})
        await connection.execute(
            _SQL["register"],
            {
                "node_id": node_id,
                "url": url,
                "host": registration.host or None,
                "default_host": _host(url) or node_id,
                "zone": registration.zone,
                "version": registration.version,
                "default_version": __version__,
                "capacity_bytes": registration.capacity_bytes,
                "disk_uuid": registration.disk_uuid,
                "incarnation": registration.incarnation,
            },
        )
    return node_id, url


def _host(url: str) -> str | None:
    try:
        return urllib.parse.urlsplit(url).hostname
    except ValueError as error:  # an IPv6 address that is none
        raise InvalidRequestError(f"node_url is no URL: {error}") from error


async def heartbeat(db: Database, node_id: str, beat: Heartbeat) -> None:
    """Note a sign of life. NotFoundError for a node that must register first, ConflictError for one fenced off."""
    touched = await db.execute(
        _SQL["heartbeat"],
        {
            "node_id": node_id,
            "disk_usage_percent": beat.disk_usage_percent,
            "chunk_count": beat.chunk_count,
            "disk_status": beat.disk_status,
            "capacity_bytes": beat.capacity_bytes,
            "incarnation": beat.incarnation,
        },
    )
    if touched:
        return
    fence = await db.row(_SQL["fence"], _Fence, {"node_id": node_id})
    if fence is None or not fence.registered:
        raise NotFoundError(f"node {node_id} is not registered")
    raise ConflictError(f"node {node_id} has a newer process, incarnation {fence.incarnation}")


async def note_probes(db: Database, node_keys: Sequence[int]) -> None:
    """These nodes answered a probe just now."""
    if node_keys:
        await db.execute(_SQL["probed"], {"node_keys": list(node_keys)})


def _check_fence(node_id: str, fence: _Fence, registration: NodeRegistration) -> None:
    if fence.disk_uuid is not None and registration.disk_uuid not in (None, fence.disk_uuid):
        raise ConflictError(f"node id {node_id} belongs to another disk; a new disk needs a new node id")
    if registration.incarnation is not None and registration.incarnation < fence.incarnation:
        raise ConflictError(f"node {node_id} has a newer process, incarnation {fence.incarnation}")
