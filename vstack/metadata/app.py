"""Wires a metadata instance: settings in, aiohttp application out."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from vstack.metadata.catalogue.generations import Generations
from vstack.metadata.deciding.commit import Committer
from vstack.metadata.deciding.consensus import Consensus
from vstack.metadata.deciding.learning import Learner
from vstack.metadata.handlers import chunks, nodes, redundancy, service, videos
from vstack.metadata.jobs import repeating
from vstack.metadata.metrics import DatabaseCollector, MetadataMetrics
from vstack.metadata.postgres.database import Database
from vstack.metadata.state import METADATA, Metadata
from vstack.metadata.upkeep import prober, reaper, sampler
from vstack.metadata.upkeep.prober import Prober
from vstack.metadata.upkeep.reaper import Reaper
from vstack.metadata.upkeep.sampler import Sampler
from vstack.rpc.http import new_session
from vstack.rpc.storage import StorageClient
from vstack.service import logs, metrics, runner
from vstack.service.app import build
from vstack.service.endpoint import Endpoint
from vstack.settings import MetadataSettings, cluster_key

JSON: Final = "application/json"

ENDPOINTS: Final = (
    Endpoint("GET", "/health", service.health, answers={503: JSON}),
    Endpoint("GET", "/", service.root),
    Endpoint("GET", "/stats", service.service_stats, errors=(503,)),
    Endpoint("POST", "/video", videos.create_video, errors=(409, 413, 503)),
    Endpoint("GET", "/videos", videos.list_videos, errors=(503,)),
    Endpoint("GET", "/video/{video_id}", videos.get_video, errors=(404, 503)),
    Endpoint("DELETE", "/video/{video_id}", videos.delete_video, status=204, errors=(404, 503)),
    Endpoint("PATCH", "/video/{video_id}/status", videos.set_video_status, errors=(404, 409, 413, 503)),
    Endpoint("GET", "/video/{video_id}/popularity", videos.get_popularity, errors=(404, 503)),
    Endpoint("POST", "/video/{video_id}/view", videos.count_view, errors=(404, 503)),
    Endpoint("GET", "/manifest/{video_id}", videos.get_manifest, errors=(404, 503)),
    Endpoint("POST", "/chunk/{chunk_id}/commit", chunks.commit_chunk, errors=(404, 409, 413, 503)),
    Endpoint("GET", "/chunk/{chunk_id}/fragments", chunks.get_fragments, errors=(404, 503)),
    Endpoint("GET", "/consensus/{chunk_id}", chunks.get_consensus, errors=(404, 503)),
    Endpoint("GET", "/nodes/healthy", nodes.healthy_nodes, errors=(503,)),
    Endpoint("GET", "/nodes/all", nodes.all_nodes, errors=(503,)),
    Endpoint("GET", "/nodes/health-summary", nodes.health_summary, errors=(503,)),
    Endpoint("POST", "/nodes/register", nodes.register_node, errors=(409, 413, 503)),
    Endpoint("POST", "/nodes/{node_id}/heartbeat", nodes.heartbeat, errors=(404, 409, 413, 503)),
    Endpoint("GET", "/redundancy/recommend/{video_id}", redundancy.recommended, errors=(404, 503)),
    Endpoint("POST", "/redundancy/override/{video_id}", redundancy.set_override, errors=(404, 503)),
    Endpoint("DELETE", "/redundancy/override/{video_id}", redundancy.clear_override, errors=(404, 503)),
    Endpoint("GET", "/redundancy/efficiency", redundancy.efficiency),
    Endpoint("GET", "/redundancy/config", redundancy.config),
    Endpoint("GET", "/storage/overhead", redundancy.overhead, errors=(503,)),
)


def run(settings: MetadataSettings) -> int:
    """Serve until a signal; the exit status."""
    logs.configure("metadata", settings.log_level)
    return runner.run(lambda: make_app(settings), settings.host, settings.port)


async def make_app(settings: MetadataSettings) -> web.Application:
    """The application of one metadata instance. It starts, and stays up, without its database too."""
    key = cluster_key(settings)
    registry = metrics.new_registry("metadata")
    figures = MetadataMetrics(registry)
    proposer_id = settings.proposer_id or 1 + secrets.randbelow(65_535)

    async def parts(app: web.Application) -> AsyncIterator[None]:
        db = Database(settings.database_url, pool_size=settings.database_pool_size)
        generations = Generations(db)
        async with contextlib.AsyncExitStack() as stack:
            storage = StorageClient(await stack.enter_async_context(new_session()))
            consensus = await stack.enter_async_context(Consensus(storage, key, proposer_id, registry))
            learner = await stack.enter_async_context(Learner(storage, registry))
            await stack.enter_async_context(db)
            registry.register(DatabaseCollector(db))
            committer = Committer(
                db=db,
                generations=generations,
                consensus=consensus,
                learner=learner,
                storage=storage,
                cluster_key=key,
                metrics=figures,
            )
            app[METADATA] = Metadata(db, generations, consensus, committer, settings.popularity_threshold)
            reaping = Reaper(
                db=db,
                generations=generations,
                consensus=consensus,
                learner=learner,
                storage=storage,
                metrics=figures,
                abandoned_after_s=settings.upload_abandoned_after_s,
            )
            jobs = (
                ("prober", Prober(db, storage).run_once, prober.INTERVAL_S),
                ("sampler", Sampler(db, figures).run_once, sampler.INTERVAL_S),
                ("reaper", reaping.run_once, reaper.INTERVAL_S),
            )
            for name, work, interval_s in jobs:
                await stack.enter_async_context(repeating(name, work, interval_s=interval_s))
            yield

    app = build("metadata", ENDPOINTS, registry=registry, cors_origin=settings.cors_origin)
    app.cleanup_ctx.append(parts)
    return app
