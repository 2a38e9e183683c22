"""`vstack metadata|storage|uploader|client --config FILE` and `vstack check-config FILE`."""

import argparse
import importlib
from pathlib import Path

import msgspec

from vstack import settings
from vstack.errors import SettingsError


def serve(options: argparse.Namespace) -> int:
    """Run one service in this process."""
    kind: str = options.kind
    named = settings.kind_of(options.config, default=kind)
    if named != kind:
        raise SettingsError(f"{options.config} is the file of a {named} service, not of a {kind} service")
    loaded = settings.load(options.config, settings.KINDS[kind])
    status: int = importlib.import_module(f"vstack.{kind}.app").run(loaded)
    return status


def check_config(options: argparse.Namespace) -> int:
    """Print the settings that a file amounts to; SettingsError where it is wrong."""
    path: Path = options.config
    kind = settings.kind_of(path)
    loaded = settings.load(path, settings.KINDS[kind])
    if isinstance(loaded, settings.MetadataSettings | settings.StorageSettings):
        settings.cluster_key(loaded)
    shown = msgspec.json.encode({"service": kind, **settings.redacted(loaded)})
    print(msgspec.json.format(shown, indent=2).decode())
    return 0
