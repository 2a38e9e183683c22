"""SQL by name: loads the statements of the files beside it.

A file holds statements, each introduced by a line `-- name: <name>`; all other comments stay with their statement.
SQL lives nowhere else in the package.
"""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def load(file: str) -> Mapping[str, bytes]:
    """The statements of `sql/<file>.sql` by name, as bytes: psycopg takes those as trusted text."""
    text = (resources.files(__package__) / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{file}.sql names a statement twice")
    return {name: body.strip().encode() for name, body in zip(names, bodies, strict=True)}


def migrations() -> list[tuple[int, str, bytes]]:
    """(version, name, script) of every migration, in order. Versions count up from 1 without a gap."""
    folder = resources.files(__package__) / "sql" / "migrations"
    found = []
    for entry in folder.iterdir():
        version, _, name = entry.name.removesuffix(".sql").partition("_")
        found.append((int(version), name, entry.read_bytes()))
    found.sort()
    if [version for version, _, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are not numbered 1, 2, 3, ...")
    return found
