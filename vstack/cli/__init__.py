"""The command line: a thin face over the services, the local cluster and the clients."""

from vstack.cli.main import main

__all__ = ["main"]
