"""Which storage nodes chunks can be written to right now.

The metadata service says who is healthy, a few seconds late; what an upload meets itself says who is not, at once. A
node that failed a write is *suspect* for a while, longer each time, and is chosen only where the others do not suffice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vstack.core.placement import Generation, Node, choose
from vstack.errors import UnavailableError
from vstack.rpc.metadata import MetadataClient
from vstack.wire.metadata import NodeSummary

REFRESH_S: Final = 3.0
SUSPECT_S: Final = 10.0
MAX_SUSPECT_S: Final = 60.0


@dataclass(slots=True)
class _Suspicion:
    failures: int
    until_s: float


class NodeDirectory:
    """The storage nodes as last heard of, and this process's own experience with them."""

    def __init__(self, metadata: MetadataClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metadata = metadata
        self._clock = clock
        self._nodes: dict[str, NodeSummary] = {}
        self._suspicions: dict[str, _Suspicion] = {}

    async def refresh(self) -> None:
        """Ask the metadata service. While it does not answer, its last answer stands."""
        listed = await self._metadata.all_nodes()
        self._nodes = {node.node_id: node for node in listed.nodes}

    def url(self, node_id: str) -> str:
        """Where a node is; UnavailableError if it is unknown."""
        node = self._nodes.get(node_id)
        if node is None:
            raise UnavailableError(f"the metadata service does not list node {node_id}")
        return node.node_url

    def is_down(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is None or node.status == "down"

    def require_any(self) -> None:
        """UnavailableError while there is no node to write to."""
        if all(self.is_down(node_id) for node_id in self._nodes):
            raise UnavailableError("no storage node is up")

    def node_id_at(self, url: str) -> str | None:
        """The node at a URL."""
        return next((node.node_id for node in self._nodes.values() if node.node_url == url), None)

    def suspect(self, node_id: str) -> None:
        """A write to this node failed or hung."""
        before = self._suspicions.get(node_id)
        failures = before.failures + 1 if before else 1
        if before and before.until_s > self._clock():
            return  # one outage fails many writes at once
        period_s = min(MAX_SUSPECT_S, SUSPECT_S * 2 ** (failures - 1))
        self._suspicions[node_id] = _Suspicion(failures, self._clock() + period_s)

    def trust(self, node_id: str) -> None:
        """A write to this node succeeded."""
        self._suspicions.pop(node_id, None)

    def is_suspect(self, node_id: str) -> bool:
        suspicion = self._suspicions.get(node_id)
        return suspicion is not None and suspicion.until_s > self._clock()

    def choose(self, chunk_id: str, generation: Generation, count: int, *, held: tuple[str, ...] = ()) -> list[str]:
        """The best `count` nodes for the copies of a chunk; `held` have theirs already and stay.

        Healthy nodes of the video's generation come first, by the ranking that picks the acceptors, then healthy nodes
        that joined later, then suspect and degraded ones, and those that are down last: a decree that names them can be
        fulfilled when they return. Within each group, hosts not used yet are preferred.
        """
        chosen = list(held)
        for group in self._groups(generation):
            hosts = {self._host(node_id) for node_id in chosen}
            open_nodes = [node for node in group if node.node_id not in chosen]
            for candidates in (
                [node for node in open_nodes if node.host not in hosts],
                [node for node in open_nodes if node.host in hosts],
            ):
                best = choose(chunk_id, candidates, count - len(chosen))
                chosen += [node.node_id for node in best]
        return chosen[:count]

    def _groups(self, generation: Generation) -> list[list[Node]]:
        members = {node.node_id: node for node in generation.nodes}
        groups: list[list[Node]] = [[], [], [], []]
        for node_id, summary in self._nodes.items():
            weight = float(max(1, summary.capacity_bytes))
            node = members.get(node_id) or Node(node_id, summary.host or summary.node_url, weight, summary.zone)
            if summary.status == "down":
                place = 3
            elif summary.status == "degraded" or self.is_suspect(node_id):
                place = 2
            else:
                place = 0 if node_id in members else 1
            groups[place].append(node)
        return groups

    def _host(self, node_id: str) -> str:
        summary = self._nodes.get(node_id)
        return (summary.host or summary.node_url) if summary else node_id
