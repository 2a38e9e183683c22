"""How the commands print: tables for people, JSON for programs."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Final, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vstack.service import logs

T = TypeVar("T")

FILE_COLUMNS: Final = 10_000
"""The width of a table that goes to a file or a pipe, where nothing may be folded."""

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def run(work: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it and becomes KeyboardInterrupt. Only errors are logged."""
    logs.configure("cli", "error")
    return asyncio.run(work)


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    print(msgspec.json.encode(value).decode(), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout. A column whose name starts with a space is flush right; only a terminal folds long text."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.startswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def size(size_bytes: float) -> str:
    """A size for people, in decimal units."""
    for unit in _UNITS[:-1]:
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
