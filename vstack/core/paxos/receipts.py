"""Receipts: what a storage node signs after its group commit returned.

A receipt states two facts about one chunk, each durable before it was signed: which bytes the node holds (`stored_*`,
empty for an acceptor that holds none) and which value it accepted at the fast ballot (`value_digest`, empty for a node
that is no acceptor or took no proposal). A fast quorum of receipts for one value digest proves that the value is
chosen, without a further message.

The signature is HMAC-SHA256 with the cluster key over the canonical JSON of the other fields, so a receipt cannot be
moved to another chunk, epoch, generation, node or value.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from vstack.core.paxos.messages import Instance


@dataclass(frozen=True, slots=True)
class Receipt:
    """`stored_checksum` is hex SHA-256 of the bytes held (a whole chunk or one fragment), "" for none."""

    node_id: str
    chunk_id: str
    epoch: int
    generation: int
    value_digest: str = ""
    stored_checksum: str = ""
    stored_bytes: int = 0
    fragment_index: int = -1
    signature: str = ""


def sign(receipt: Receipt, cluster_key: bytes) -> Receipt:
    """The same receipt with its signature."""
    return replace(receipt, signature=_signature(receipt, cluster_key))


def is_genuine(receipt: Receipt, cluster_key: bytes) -> bool:
    """Whether the signature is ours; constant time."""
    return hmac.compare_digest(_signature(receipt, cluster_key), receipt.signature)


def voters(receipts: Iterable[Receipt], instance: Instance, value_digest: str, cluster_key: bytes) -> frozenset[str]:
    """The acceptors of `instance` that provably accepted this value at the fast ballot. Other receipts are ignored."""
    return frozenset(
        receipt.node_id
        for receipt in receipts
        if receipt.node_id in instance.config.acceptors
        and receipt.value_digest == value_digest
        and (receipt.chunk_id, receipt.epoch) == (instance.chunk_id, instance.epoch)
        and receipt.generation == instance.config.generation
        and is_genuine(receipt, cluster_key)
    )


def _signature(receipt: Receipt, cluster_key: bytes) -> str:
    unsigned = msgspec.json.encode(replace(receipt, signature=""))
    return hmac.new(cluster_key, unsigned, hashlib.sha256).hexdigest()
