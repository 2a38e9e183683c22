"""What a commit may say and what it takes: the pure half of `commit.py`."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from vstack import checksums, ids
from vstack.core.decree import Decree, Mode, Placement, VideoFacts
from vstack.core.paxos.receipts import Receipt, is_genuine
from vstack.core.redundancy import fragment_bytes
from vstack.errors import InvalidRequestError
from vstack.metadata.catalogue.pieces import Piece
from vstack.units import (
    ERASURE_WRITE_QUORUM,
    MAX_CHUNK_BYTES,
    REPLICATION_FACTOR,
    REPLICATION_WRITE_QUORUM,
    TOTAL_SHARDS,
)
from vstack.wire.metadata import CommitRequest

FIRST_EPOCH: Final = 0
MAX_TIMESTAMP_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def check_chunk_id(chunk_id: str, video_id: str, sequence_num: int) -> None:
    """A chunk id of our form must say the same video and number as the request. Other ids say nothing."""
    if ids.parse_chunk_id(chunk_id) is not None and chunk_id != ids.chunk_id(video_id, sequence_num):
        raise InvalidRequestError(f"chunk {chunk_id} is not number {sequence_num} of video {video_id}")


def build_decree(request: CommitRequest, facts: VideoFacts, id_by_url: Mapping[str, str]) -> Decree:
    """The decree that a request asks for. InvalidRequestError where it names nodes wrongly."""
    node_ids = [_node_id(url, id_by_url) for url in request.node_urls]
    if len(set(node_ids)) != len(node_ids):
        raise InvalidRequestError("node_urls names a node twice")
    whole = Decree.for_copies(
        node_ids,
        video=facts,
        sequence_num=request.sequence_num,
        checksum=checksums.parse(request.checksum),
        size_bytes=request.size_bytes,
        duration_ms=request.duration_ms,
        segment=request.segment,
        init_size_bytes=request.init_size_bytes,
        last=request.last,
    )
    if request.redundancy_mode == "replication":
        if request.fragments_metadata:
            raise InvalidRequestError("fragments_metadata belongs to redundancy_mode erasure_coding")
        return whole
    return _with_fragments(whole, request, id_by_url)


def copies_needed(mode: Mode, named: int, registered: int) -> int:
    """How many of the named pieces must be durable before a commit.

    Two of three copies, four of five fragments; a cluster of fewer than three nodes needs every copy that is named.
    InvalidRequestError where the request names too few to ever get there.
    """
    if mode is Mode.ERASURE_CODING:
        return ERASURE_WRITE_QUORUM
    if registered < REPLICATION_FACTOR:
        return named
    if named < REPLICATION_WRITE_QUORUM:
        raise InvalidRequestError(f"a chunk needs copies on at least {REPLICATION_WRITE_QUORUM} nodes")
    return REPLICATION_WRITE_QUORUM


def copies_wanted(mode: Mode, registered: int) -> int:
    """How many live pieces a chunk has when nothing is missing."""
    return TOTAL_SHARDS if mode is Mode.ERASURE_CODING else min(REPLICATION_FACTOR, registered)


def proven(wanted: Iterable[Piece], chunk_id: str, receipts: Sequence[Receipt], key: bytes) -> frozenset[Piece]:
    """The pieces that receipts prove durable. A receipt that says something else counts for nothing; a forged one is
    an InvalidRequestError.
    """
    for receipt in receipts:
        if not is_genuine(receipt, key):
            raise InvalidRequestError("a receipt is not signed with this cluster's key")
    stated = {
        (receipt.node_id, receipt.chunk_id, receipt.stored_checksum, receipt.stored_bytes) for receipt in receipts
    }
    return frozenset(
        piece
        for piece in wanted
        if not stated.isdisjoint(
            {
                (piece.node_id, piece.object_id, piece.checksum, piece.size_bytes),
                (piece.node_id, chunk_id, piece.checksum, piece.size_bytes),
            }
        )
    )


def readable(value: bytes, chunk_id: str) -> Decree | None:
    """The decree of a chosen value, if a row can be made of it; None for an ABORT, or for a value that no service of
    ours would propose.
    """
    try:
        decree = Decree.decode(value)
        ids.check(decree.video_id)
        check_chunk_id(chunk_id, decree.video_id, decree.sequence_num)
        for node_id in decree.node_ids:
            ids.check(node_id)
        digests = {decree.checksum, *(placement.checksum for placement in decree.placements)}
        canonical = {checksums.parse(digest) for digest in digests}
    except InvalidRequestError:
        return None
    numbers = (decree.sequence_num, decree.duration_ms, decree.segment, decree.init_size_bytes, decree.next_generation)
    places = {(placement.fragment_index, placement.node_id) for placement in decree.placements}
    indexes = {-1} if decree.mode is Mode.REPLICATION else set(range(TOTAL_SHARDS))
    fits = (
        digests == canonical
        and decree.mode is not Mode.ABORT
        and 0 < len(decree.placements) == len(places)
        and all(index in indexes for index, _ in places)
        and 0 < decree.size_bytes <= MAX_CHUNK_BYTES
        and 0 <= decree.created_at_ms <= MAX_TIMESTAMP_MS
        and all(0 <= number < 2**31 for number in numbers)
    )
    return decree if fits else None


def is_abort(value: bytes) -> bool:
    """Whether a chosen value gives its chunk up."""
    try:
        return Decree.decode(value).mode is Mode.ABORT
    except InvalidRequestError:
        return False


def understood(value: bytes, chunk_id: str, video_id: str, node_ids: AbstractSet[str]) -> Decree | None:
    """The decree of a value that another proposer got chosen, if it places this chunk of this video on nodes that are
    known; else None, as for `readable`.
    """
    decree = readable(value, chunk_id)
    return decree if decree and decree.video_id == video_id and node_ids >= set(decree.node_ids) else None


def _with_fragments(whole: Decree, request: CommitRequest, id_by_url: Mapping[str, str]) -> Decree:
    fragments = request.fragments_metadata or ()
    if sorted(fragment.fragment_index for fragment in fragments) != list(range(TOTAL_SHARDS)):
        raise InvalidRequestError(f"fragments_metadata must describe fragments 0 to {TOTAL_SHARDS - 1}, each once")
    placements = tuple(
        Placement(_node_id(fragment.node_url, id_by_url), checksums.parse(fragment.checksum), fragment.fragment_index)
        for fragment in sorted(fragments, key=lambda fragment: fragment.fragment_index)
    )
    if len(whole.placements) != TOTAL_SHARDS or {placement.node_id for placement in placements} != set(whole.node_ids):
        raise InvalidRequestError(f"node_urls and fragments_metadata must name the same {TOTAL_SHARDS} nodes")
    size_bytes = fragment_bytes(request.size_bytes)
    if any(fragment.size_bytes != size_bytes for fragment in fragments):
        raise InvalidRequestError(f"a fragment of this chunk has {size_bytes} bytes")
    return replace(whole, mode=Mode.ERASURE_CODING, placements=placements)


def _node_id(url: str, id_by_url: Mapping[str, str]) -> str:
    node_id = id_by_url.get(url)
    if node_id is None:
        raise InvalidRequestError(f"no node is registered at {url}")
    return node_id
