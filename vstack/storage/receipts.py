"""Signs what this node has made durable, with the cluster's key."""

from vstack.core.decree import digest
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.receipts import Receipt, sign
from vstack.storage.contract import ChunkInfo
from vstack.wire import consensus


class Notary:
    """Makes receipts in the name of one node. Call it only with facts that are durable."""

    def __init__(self, node_id: str, cluster_key: bytes) -> None:
        self._node_id = node_id
        self._key = cluster_key

    def receipt(self, instance: Instance, *, vote: bytes | None, stored: ChunkInfo | None) -> str:
        """The receipt as header text: `vote` was accepted at the fast ballot, `stored` is what the node holds."""
        receipt = Receipt(
            node_id=self._node_id,
            chunk_id=instance.chunk_id,
            epoch=instance.epoch,
            generation=instance.config.generation,
            value_digest=digest(vote) if vote is not None else "",
            stored_checksum=stored.checksum if stored else "",
            stored_bytes=stored.size_bytes if stored else 0,
            fragment_index=stored.fragment_index if stored else -1,
        )
        return consensus.receipt_to_header(sign(receipt, self._key))
