"""What the command line accepts. Each command names the function that runs it; its module is imported only then."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from vstack import __version__
from vstack.dev.ports import METADATA_PORT, UPLOADER_PORT, url

USAGE_ERROR: Final = 2
SERVICES: Final = ("metadata", "storage", "uploader", "client")

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Errors are one line, as everywhere in `vstack`."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(USAGE_ERROR)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="vstack", description="A distributed video store for your own machines.")
    parser.add_argument("--version", action="version", version=f"vstack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_services(commands)
    _add_dev(commands)
    _add_library(commands)
    _add_admin(commands)
    return parser


def metadata_urls(options: argparse.Namespace) -> list[str]:
    """Where the metadata service is: the options, else $VSTACK_METADATA (comma-separated), else the default port."""
    given: list[str] = options.metadata or _from_environment("VSTACK_METADATA")
    return given or [url(METADATA_PORT + options.port_offset)]


def uploader_url(options: argparse.Namespace) -> str:
    """Where the uploader is: the option, else $VSTACK_UPLOADER, else the default port."""
    given = options.uploader or next(iter(_from_environment("VSTACK_UPLOADER")), None)
    return given or url(UPLOADER_PORT + options.port_offset)


def _from_environment(name: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def _later(module: str, name: str) -> Run:
    """`name` of `vstack.cli.<module>`, imported when it is called: a command loads only what it needs."""

    def run(options: argparse.Namespace) -> int:
        function: Run = getattr(importlib.import_module(f"vstack.cli.{module}"), name)
        return function(options)

    return run


def _add_services(commands: "argparse._SubParsersAction[Parser]") -> None:
    for kind in SERVICES:
        command = commands.add_parser(kind, help=f"run the {kind} service")
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        command.set_defaults(run=_later("serve", "serve"), kind=kind)
    media = commands.add_parser("media-job", help="run ffmpeg or ffprobe once, for the uploader")
    for tool in ("ffmpeg", "ffprobe"):
        media.add_argument(f"--{tool}", required=True, metavar="FILE")
    media.set_defaults(run=_later("media", "run"))
    check = commands.add_parser("check-config", help="check a configuration file and print it without its secrets")
    check.add_argument("config", type=Path, metavar="FILE")
    check.set_defaults(run=_later("serve", "check_config"))


def _add_dev(commands: "argparse._SubParsersAction[Parser]") -> None:
    dev = commands.add_parser("dev", help="a real local cluster on this machine")
    up = dev.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser(
        "up",
        help="start everything and stay in the foreground",
        description=(
            "Starts PostgreSQL, the metadata service, the storage nodes, the uploader and the client server, each as a "
            "process of its own; prints one line of JSON when all are healthy. SIGINT or SIGTERM stops everything. "
            "DIR/run/NAME.pid holds the process id of each; what ends is not restarted until SIGUSR1."
        ),
    )
    up.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="everything it writes (./data)")
    up.add_argument("--nodes", type=int, default=5, metavar="N", help="storage nodes (5)")
    up.add_argument("--port-offset", type=int, default=0, metavar="K", help="added to every default port")
    up.add_argument("--database-url", metavar="URL", help="use this PostgreSQL database instead of an own server")
    up.set_defaults(run=_later("dev", "up"))


def _add_library(commands: "argparse._SubParsersAction[Parser]") -> None:
    peers = Parser(add_help=False)
    peers.add_argument("--metadata", action="append", metavar="URL", help="metadata service; repeat for several")
    peers.add_argument("--port-offset", type=int, default=0, metavar="K", help="of the local cluster (0)")
    peers.add_argument("--json", action="store_true", help="print JSON")

    upload = commands.add_parser("upload", parents=[peers], help="store a video; prints its id last")
    upload.add_argument("file", type=Path, metavar="FILE")
    upload.add_argument("--title", required=True, metavar="T")
    upload.add_argument("--uploader", metavar="URL", help="uploader service")
    upload.add_argument("--patience", type=float, metavar="S", help="how long an uploader may be away")
    upload.set_defaults(run=_later("upload", "upload"))

    play = commands.add_parser("play", parents=[peers], help="play a video through the smart client")
    play.add_argument("video_id", metavar="ID")
    play.add_argument("--output", type=Path, metavar="FILE", help="write the exact bytes that were played")
    play.add_argument("--speed", type=float, default=1.0, metavar="X", help="1 is real time, 0 as fast as possible")
    play.set_defaults(run=_later("play", "play"))

    for name, help_text in (("videos", "list the videos"), ("nodes", "list the storage nodes")):
        command = commands.add_parser(name, parents=[peers], help=help_text)
        command.set_defaults(run=_later("library", name))

    delete = commands.add_parser("delete", parents=[peers], help="delete a video")
    delete.add_argument("video_id", metavar="ID")
    delete.set_defaults(run=_later("library", "delete"))


def _add_admin(commands: "argparse._SubParsersAction[Parser]") -> None:
    admin = commands.add_parser("admin", help="for the operator").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    migrate = admin.add_parser(
        "migrate",
        help="bring the database's schema up to this release",
        description="The metadata service does the same when it starts. An upgrade does it first, once, and alone.",
    )
    migrate.add_argument("--config", type=Path, required=True, metavar="FILE", help="of a metadata service")
    migrate.add_argument("--json", action="store_true", help="print JSON")
    migrate.set_defaults(run=_later("admin", "migrate_schema"))
    rebuild = admin.add_parser(
        "rebuild-metadata",
        help="make the database again from the storage nodes",
        description="Fills an empty or outdated database from the storage nodes. Running it again changes nothing.",
    )
    rebuild.add_argument("--config", type=Path, required=True, metavar="FILE", help="of a metadata service")
    rebuild.add_argument(
        "--node",
        action="append",
        metavar="URL",
        help="a storage node, repeat for each; by default all that have registered",
    )
    rebuild.add_argument("--json", action="store_true", help="print JSON")
    rebuild.set_defaults(run=_later("admin", "rebuild_metadata"))
