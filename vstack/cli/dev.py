"""`vstack dev up`."""

import argparse

from vstack.dev.cluster import Options
from vstack.dev.up import up as run_up


def up(options: argparse.Namespace) -> int:
    """Run a local cluster in the foreground."""
    return run_up(
        Options(
            data_dir=options.data_dir,
            nodes=options.nodes,
            port_offset=options.port_offset,
            database_url=options.database_url,
        )
    )
