"""Which nodes: weighted rendezvous hashing over distinct failure domains.

The same ranking picks the acceptors of a chunk (over an immutable generation) and its replicas (over the nodes that can
be written right now), so replicas fall on acceptors wherever they can and the fast round costs the fewest messages.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); the weighted form -w / ln(h)
is from Schindelhauer and Schomaker (2005). Adding or losing a node moves only the chunks that it gains or held.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from vstack.core.paxos.config import Config, acceptor_count


@dataclass(frozen=True, slots=True)
class Node:
    """A storage node as placement sees it: `weight` is proportional to capacity (> 0); `host` is the failure domain."""

    node_id: str
    host: str
    weight: float = 1.0
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """An immutable, numbered node set. A video pins the one that it was created with."""

    number: int
    nodes: tuple[Node, ...]


def rank(key: str, nodes: Iterable[Node]) -> list[Node]:
    """All nodes, best first, for this key; independent of the order given."""
    return sorted(nodes, key=lambda node: (-_score(key, node), node.node_id))


def choose(key: str, nodes: Iterable[Node], count: int) -> list[Node]:
    """The best `count` nodes, one per host while unused hosts remain, then further nodes of hosts already used.

    Fewer than `count` are returned only where there are fewer nodes.
    """
    ranked = rank(key, nodes)
    chosen: list[Node] = []
    hosts: set[str] = set()
    for node in ranked:
        if len(chosen) < count and node.host not in hosts:
            chosen.append(node)
            hosts.add(node.host)
    for node in ranked:
        if len(chosen) < count and node not in chosen:
            chosen.append(node)
    return chosen


def config_for(chunk_id: str, generation: Generation) -> Config:
    """The acceptors of a chunk: the top 5, 3 or 1 of the generation, over distinct hosts where there are enough."""
    count = acceptor_count(len(generation.nodes))
    acceptors = choose(chunk_id, generation.nodes, count)
    return Config(generation=generation.number, acceptors=tuple(node.node_id for node in acceptors))


def _score(key: str, node: Node) -> float:
    digest = hashlib.blake2b(f"{key}\0{node.node_id}".encode(), digest_size=8).digest()
    unit = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52  # 52 bits: strictly inside (0, 1) as a float
    return -node.weight / math.log(unit)
