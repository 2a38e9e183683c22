"""What the handlers of a storage node share."""

import time
from dataclasses import dataclass, field

from aiohttp import web

from vstack.storage.acceptors import Acceptors
from vstack.storage.contract import Engine
from vstack.storage.metrics import StorageMetrics
from vstack.storage.receipts import Notary
from vstack.storage.slow_reads import SlowReads
from vstack.storage.writing import Writer


@dataclass(frozen=True, slots=True)
class Node:
    """One open engine and the jobs that stand on it."""

    engine: Engine
    acceptors: Acceptors
    notary: Notary
    writer: Writer
    metrics: StorageMetrics
    slow_reads: SlowReads = field(default_factory=SlowReads)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def on(cls, engine: Engine, cluster_key: bytes, metrics: StorageMetrics) -> "Node":
        acceptors = Acceptors(engine, metrics.count_acceptor_message)
        notary = Notary(engine.identity.node_id, cluster_key)
        return cls(engine, acceptors, notary, Writer(engine, acceptors, notary), metrics)


NODE: web.AppKey[Node] = web.AppKey("node", Node)
