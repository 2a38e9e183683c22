"""The metadata service's messages. Field names and types are the public contract."""

from typing import Annotated, Literal

import msgspec

from vstack.ids import Identifier
from vstack.units import MAX_CHUNK_BYTES
from vstack.wire.common import Checksum, Count, Message, NodeUrl, Percent, Seconds, ShortText, Size, Title

ChunkMode = Literal["replication", "erasure_coding"]
VideoStatus = Literal["uploading", "active", "failed", "deleting"]
NodeStatus = Literal["healthy", "degraded", "down"]
Timestamp = str
"""ISO-8601 UTC with Z."""


class Health(Message, frozen=True, kw_only=True):
    status: Literal["healthy", "unhealthy"]
    service: str
    healthy_nodes: int
    total_nodes: int
    database_status: Literal["healthy", "unhealthy"]


class Root(Message, frozen=True, kw_only=True):
    message: str
    version: str


class Stats(Message, frozen=True, kw_only=True):
    total_videos: int
    total_chunks: int
    total_replicas: int
    healthy_nodes: int
    service_version: str
    total_fragments: int = 0


class GenerationNode(Message, frozen=True, kw_only=True):
    """A member of a generation, as placement ranks it."""

    node_id: str
    host: str
    weight: float
    zone: str = ""


class GenerationBody(Message, frozen=True, kw_only=True):
    number: int
    nodes: tuple[GenerationNode, ...]


class VideoCreate(Message, frozen=True, kw_only=True):
    """`video_id` lets an uploader register the id that it has already announced; it must be new."""

    title: Title
    duration_sec: Seconds = 0
    video_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,50}(?![\s\S])", min_length=1)] | None = None


class VideoCreated(Message, frozen=True, kw_only=True):
    """`generation` is the node set that decides this video's placements."""

    video_id: str
    upload_url: str
    generation: GenerationBody
    created_at: Timestamp


class Video(Message, frozen=True, kw_only=True):
    video_id: str
    title: str
    duration_sec: float
    total_chunks: int
    status: VideoStatus
    created_at: Timestamp
    view_count: int = 0
    size_bytes: int = 0


class PageQuery(Message, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


class StatusChange(Message, frozen=True, kw_only=True):
    """The uploader's last word on a video: complete (active) or given up (failed). Sizes are checked on activation."""

    status: Literal["active", "failed"]
    total_chunks: Count | None = None
    duration_sec: Seconds | None = None


class Fragment(Message, frozen=True, kw_only=True):
    fragment_id: str
    fragment_index: int
    node_url: str
    size_bytes: int
    checksum: str
    status: str


class ManifestChunk(Message, frozen=True, kw_only=True):
    chunk_id: str
    sequence_num: int
    size_bytes: int
    checksum: str
    redundancy_mode: ChunkMode
    replicas: tuple[str, ...]
    fragments: tuple[Fragment, ...] = ()
    duration_sec: float = 0
    segment: int = 0


class ManifestSegment(Message, frozen=True, kw_only=True):
    """A run of chunks that starts with a random-access point: chunks first .. first + count - 1."""

    first: int
    count: int
    duration_sec: float
    bytes: int


class Manifest(Message, frozen=True, kw_only=True):
    video_id: str
    title: str
    duration_sec: float
    total_chunks: int
    chunk_duration_sec: float
    chunk_size_bytes: int
    created_at: Timestamp
    status: VideoStatus
    chunks: tuple[ManifestChunk, ...]
    init_size_bytes: int = 0
    segments: tuple[ManifestSegment, ...] = ()


class Popularity(Message, frozen=True, kw_only=True):
    video_id: str
    view_count: int


class Acknowledged(Message, frozen=True, kw_only=True):
    status: Literal["ok"]
    message: str


class FragmentPlacement(Message, frozen=True, kw_only=True):
    """Where one fragment of an erasure-coded chunk goes."""

    fragment_index: Annotated[int, msgspec.Meta(ge=0, le=15)]
    node_url: NodeUrl
    checksum: Checksum
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_BYTES)]


ReceiptText = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class CommitRequest(Message, frozen=True, kw_only=True):
    """The documented fields name the placement; the others make it durable knowledge for a rebuild.

    `receipts` are the X-Chunk-Receipt texts of the nodes that took the chunk. Without them the service asks the nodes.
    """

    node_urls: Annotated[tuple[NodeUrl, ...], msgspec.Meta(min_length=1, max_length=16)]
    checksum: Checksum
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_BYTES)]
    video_id: Identifier
    sequence_num: Count
    redundancy_mode: ChunkMode = "replication"
    fragments_metadata: Annotated[tuple[FragmentPlacement, ...], msgspec.Meta(max_length=16)] | None = None
    receipts: Annotated[tuple[ReceiptText, ...], msgspec.Meta(max_length=16)] = ()
    duration_ms: Count = 0
    segment: Count = 0
    init_size_bytes: Count = 0
    last: bool = False


class CommitReply(Message, frozen=True, kw_only=True):
    """`degraded` says that fewer copies than intended are durable yet; the rest is filled in later."""

    success: bool
    committed_nodes: tuple[str, ...]
    message: str
    degraded: bool = False


class ChunkFragments(Message, frozen=True, kw_only=True):
    chunk_id: str
    fragments: tuple[Fragment, ...]


class AcceptorAnswer(Message, frozen=True, kw_only=True):
    """One acceptor's own answer, asked now; `reachable` false where it gave none."""

    node_id: str
    reachable: bool
    promised_ballot: int = -1
    accepted_ballot: int = -1
    accepted_value: str | None = None
    learned: bool = False


class ConsensusState(Message, frozen=True, kw_only=True):
    """`accepted_value` is the JSON text of the chosen (or highest accepted) node URLs; null when there is none."""

    chunk_id: str
    promised_ballot: int
    accepted_ballot: int
    accepted_value: str | None
    phase: Literal["none", "prepare", "accept", "committed"]
    epoch: int = 0
    generation: int = 0
    acceptors: tuple[AcceptorAnswer, ...] = ()


class NodeSummary(Message, frozen=True, kw_only=True):
    node_url: str
    node_id: str
    last_heartbeat: Timestamp | None
    disk_usage_percent: float
    chunk_count: int
    status: NodeStatus
    version: str
    host: str = ""
    zone: str = ""
    capacity_bytes: int = 0


class NodeList(Message, frozen=True, kw_only=True):
    nodes: tuple[NodeSummary, ...]


class HealthSummary(Message, frozen=True, kw_only=True):
    healthy: int
    degraded: int
    down: int


class NodeRegistration(Message, frozen=True, kw_only=True):
    """`disk_uuid` and `incarnation` fence a node id to one disk and one process: an older incarnation is refused."""

    node_url: NodeUrl | None = None
    node_id: Identifier | None = None
    version: ShortText | None = None
    host: ShortText | None = None
    zone: ShortText | None = None
    capacity_bytes: Size | None = None
    disk_uuid: Identifier | None = None
    incarnation: Size | None = None


class NodeRegistered(Message, frozen=True, kw_only=True):
    status: Literal["registered"]
    node_id: str
    node_url: str


class Heartbeat(Message, frozen=True, kw_only=True):
    disk_usage_percent: Percent
    chunk_count: Size
    disk_status: Literal["healthy", "warning", "critical", "read_only"] = "healthy"
    capacity_bytes: Size | None = None
    incarnation: Size | None = None


class RedundancyConfig(Message, frozen=True, kw_only=True):
    """The shape of the recommended redundancy; shard counts are null under replication."""

    mode: ChunkMode
    data_shards: int | None = None
    parity_shards: int | None = None
    total_shards: int | None = None
    min_shards_for_recovery: int | None = None
    replicas: int | None = None


class Recommendation(Message, frozen=True, kw_only=True):
    video_id: str
    view_count: int
    recommended_mode: ChunkMode
    config: RedundancyConfig


class OverrideQuery(Message, frozen=True, kw_only=True):
    mode: ChunkMode


class OverrideSet(Message, frozen=True, kw_only=True):
    status: Literal["ok"]
    video_id: str
    override_mode: ChunkMode
    message: str


class OverrideCleared(Message, frozen=True, kw_only=True):
    status: Literal["ok"]
    video_id: str
    message: str


class EfficiencyFactors(Message, frozen=True, kw_only=True):
    replication_overhead_factor: float
    erasure_coding_overhead_factor: float
    storage_savings_percent: float


class ModeProfile(Message, frozen=True, kw_only=True):
    storage_per_chunk_mb: float
    nodes_required: int
    failures_tolerated: int


class ModeComparison(Message, frozen=True, kw_only=True):
    replication: ModeProfile
    erasure_coding: ModeProfile


class Efficiency(Message, frozen=True, kw_only=True):
    efficiency: EfficiencyFactors
    mode_comparison: ModeComparison


class RedundancyPolicy(Message, frozen=True, kw_only=True):
    popularity_threshold: int
    replication_factor: int
    erasure_data_shards: int
    erasure_parity_shards: int
    erasure_total_shards: int


class StorageOverhead(Message, frozen=True, kw_only=True):
    replication_chunks: int
    erasure_coded_chunks: int
    total_logical_bytes: int
    total_physical_bytes: int
    storage_savings_percent: float
    replication_overhead_bytes: int
    erasure_overhead_bytes: int
