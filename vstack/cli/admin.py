"""`vstack admin migrate` and `vstack admin rebuild-metadata`."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from vstack import settings
from vstack.cli import output
from vstack.errors import SettingsError, VStackError
from vstack.metadata.postgres.database import apply_migrations
from vstack.metadata.rebuild.rebuild import RebuildReport, rebuild
from vstack.rpc.http import new_session
from vstack.rpc.metadata import MetadataClient


def rebuild_metadata(options: argparse.Namespace) -> int:
    """Make the database again from the storage nodes; prints what was found."""
    loaded = settings.load(options.config, settings.MetadataSettings)
    report = output.run(_rebuild(loaded, options.node or ()))
    if options.json:
        output.print_json(report)
    else:
        rows = ((name.replace("_", " "), str(value)) for name, value in asdict(report).items() if name != "conflicts")
        output.print_table(("REBUILT", " "), rows)
        for chunk_id in report.conflicts:
            print(f"the database contradicts the nodes: {chunk_id}")
    return 0


def migrate_schema(options: argparse.Namespace) -> int:
    """Apply the migrations that the database lacks; prints their numbers."""
    loaded = settings.load(options.config, settings.MetadataSettings)
    applied = output.run(apply_migrations(loaded.database_url))
    if options.json:
        output.print_json({"applied": applied})
    else:
        print(f"applied: {', '.join(map(str, applied)) or 'nothing, the schema is up to date'}")
    return 0


async def _rebuild(loaded: settings.MetadataSettings, nodes: Sequence[str]) -> RebuildReport:
    return await rebuild(loaded, nodes or await _registered_nodes(loaded))


async def _registered_nodes(loaded: settings.MetadataSettings) -> list[str]:
    """The nodes that have registered with the running service, as they do within seconds, also on an empty database."""
    async with new_session() as session:
        try:
            known = await MetadataClient(session, [f"http://{loaded.host}:{loaded.port}"]).all_nodes()
        except VStackError as error:
            raise SettingsError("name the storage nodes with --node: the metadata service does not answer") from error
    return [node.node_url for node in known.nodes]
