"""HTTP of redundancy: what a video should have, what each mode costs, what is stored."""

from typing import Final

from aiohttp import web

from vstack.core.decree import Mode
from vstack.core.redundancy import PROFILES, Profile, recommend, savings_percent
from vstack.ids import Identifier
from vstack.metadata.catalogue import stats, videos
from vstack.metadata.catalogue.stats import ModeBytes
from vstack.metadata.state import METADATA
from vstack.units import DATA_SHARDS, PARITY_SHARDS, REPLICATION_FACTOR, TOTAL_SHARDS
from vstack.wire import metadata as wire

_CONFIGS: Final[dict[Mode, wire.RedundancyConfig]] = {
    Mode.REPLICATION: wire.RedundancyConfig(mode="replication", replicas=REPLICATION_FACTOR),
    Mode.ERASURE_CODING: wire.RedundancyConfig(
        mode="erasure_coding",
        data_shards=DATA_SHARDS,
        parity_shards=PARITY_SHARDS,
        total_shards=TOTAL_SHARDS,
        min_shards_for_recovery=DATA_SHARDS,
    ),
}


async def recommended(request: web.Request, *, video_id: Identifier) -> wire.Recommendation:
    """The redundancy mode for a video, by its popularity or its override."""
    metadata = request.app[METADATA]
    popularity = await videos.popularity(metadata.db, video_id)
    override = None if popularity.override_mode is None else Mode(popularity.override_mode)
    mode = recommend(popularity.view_count, popularity_threshold=metadata.popularity_threshold, override=override)
    config = _CONFIGS[mode]
    return wire.Recommendation(
        video_id=video_id, view_count=popularity.view_count, recommended_mode=config.mode, config=config
    )


async def set_override(request: web.Request, *, video_id: Identifier, query: wire.OverrideQuery) -> wire.OverrideSet:
    """Fix a video's redundancy mode by hand."""
    await videos.override(request.app[METADATA].db, video_id, query.mode)
    return wire.OverrideSet(
        status="ok", video_id=video_id, override_mode=query.mode, message=f"Manual override set to {query.mode}"
    )


async def clear_override(request: web.Request, *, video_id: Identifier) -> wire.OverrideCleared:
    """Let a video's popularity decide again."""
    await videos.override(request.app[METADATA].db, video_id, None)
    return wire.OverrideCleared(status="ok", video_id=video_id, message="Manual override cleared")


async def efficiency(_request: web.Request) -> wire.Efficiency:
    """What the modes cost, compared."""
    copies, fragments = PROFILES[Mode.REPLICATION], PROFILES[Mode.ERASURE_CODING]
    return wire.Efficiency(
        efficiency=wire.EfficiencyFactors(
            replication_overhead_factor=copies.overhead_factor,
            erasure_coding_overhead_factor=round(fragments.overhead_factor, 2),
            storage_savings_percent=round(100 * (1 - fragments.overhead_factor / copies.overhead_factor), 1),
        ),
        mode_comparison=wire.ModeComparison(replication=_profile(copies), erasure_coding=_profile(fragments)),
    )


async def config(request: web.Request) -> wire.RedundancyPolicy:
    """The policy in force."""
    return wire.RedundancyPolicy(
        popularity_threshold=request.app[METADATA].popularity_threshold,
        replication_factor=REPLICATION_FACTOR,
        erasure_data_shards=DATA_SHARDS,
        erasure_parity_shards=PARITY_SHARDS,
        erasure_total_shards=TOTAL_SHARDS,
    )


async def overhead(request: web.Request) -> wire.StorageOverhead:
    """Bytes of video against bytes on disks, from what is stored now."""
    by_mode = await stats.overhead(request.app[METADATA].db)
    copies = by_mode.get("replication", ModeBytes("replication", 0, 0, 0))
    fragments = by_mode.get("erasure_coding", ModeBytes("erasure_coding", 0, 0, 0))
    logical_bytes = copies.logical_bytes + fragments.logical_bytes
    physical_bytes = copies.physical_bytes + fragments.physical_bytes
    return wire.StorageOverhead(
        replication_chunks=copies.chunks,
        erasure_coded_chunks=fragments.chunks,
        total_logical_bytes=logical_bytes,
        total_physical_bytes=physical_bytes,
        storage_savings_percent=round(savings_percent(logical_bytes, physical_bytes), 1),
        replication_overhead_bytes=copies.physical_bytes,
        erasure_overhead_bytes=fragments.physical_bytes,
    )


def _profile(profile: Profile) -> wire.ModeProfile:
    return wire.ModeProfile(
        storage_per_chunk_mb=round(profile.chunk_mib, 2),
        nodes_required=profile.nodes_required,
        failures_tolerated=profile.failures_tolerated,
    )
