"""HTTP of chunks: decode, call, encode."""

from aiohttp import web

from vstack.ids import Identifier
from vstack.metadata.catalogue import chunks, manifest, nodes
from vstack.metadata.deciding import inspection
from vstack.metadata.state import METADATA
from vstack.wire import metadata as wire


async def commit_chunk(request: web.Request, *, chunk_id: Identifier, body: wire.CommitRequest) -> wire.CommitReply:
    """Commit where a chunk lives, by consensus of its acceptors."""
    return await request.app[METADATA].committer.commit(chunk_id, body)


async def get_fragments(request: web.Request, *, chunk_id: Identifier) -> wire.ChunkFragments:
    """The fragments of an erasure-coded chunk; none for a replicated one."""
    db = request.app[METADATA].db
    placed = await chunks.placed(db, chunk_id)
    by_key = {node.node_key: node for node in await nodes.all_nodes(db)}
    return wire.ChunkFragments(chunk_id=chunk_id, fragments=manifest.fragments(chunk_id, placed, by_key))


async def get_consensus(request: web.Request, *, chunk_id: Identifier) -> wire.ConsensusState:
    """What the acceptors of a chunk say about it now."""
    metadata = request.app[METADATA]
    return await inspection.inspect(metadata.db, metadata.generations, metadata.consensus, chunk_id)
