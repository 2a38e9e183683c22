"""`vstack upload FILE --title T`: sends a file and waits until it is stored."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from vstack.cli import output
from vstack.cli.parser import uploader_url
from vstack.errors import VStackError
from vstack.rpc.http import new_session
from vstack.rpc.uploader import PATIENCE_S, UploaderClient
from vstack.wire.uploader import UploadStatus

SENT_PERCENT: Final = 10
"""The share of the bar that sending the file takes, as the uploader's own progress has it."""

Show = Callable[[float, str], None]


class UploadFailedError(VStackError):
    """The uploader took the file and could not store it."""

    code = "upload_failed"


def upload(options: argparse.Namespace) -> int:
    """Store a video; the last line on stdout is its id."""
    stored = output.run(_upload(options))
    if options.json:
        output.print_json(stored)
    else:
        print(stored.video_id, flush=True)
    return 0


async def store(
    session: aiohttp.ClientSession,
    url: str,
    file: Path,
    title: str,
    *,
    bar: bool = True,
    patience_s: float = PATIENCE_S,
) -> UploadStatus:
    """Send a file and wait until it is stored, with a progress bar on stderr if that is a terminal.

    UploadFailedError with the uploader's reason, and what `UploaderClient` raises.
    """
    client = UploaderClient(session, url, patience_s=patience_s)
    with _bar(file.name, shown=bar) as show:
        accepted = await client.upload(
            file,
            title,
            lambda sent, total: show(SENT_PERCENT * sent / max(1, total), "sending"),
            lambda _reason: show(0, "waiting for the uploader"),
        )
        status = await client.wait(
            accepted.upload_session_id, lambda status: show(status.progress, status.status.replace("_", " "))
        )
    if status.status != "completed":
        raise UploadFailedError(f"{file} was not stored: {status.error}")
    return status


async def _upload(options: argparse.Namespace) -> UploadStatus:
    async with new_session() as session:
        return await store(
            session,
            uploader_url(options),
            options.file,
            options.title,
            bar=not options.json,
            patience_s=PATIENCE_S if options.patience is None else options.patience,
        )


@contextlib.contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Show]:
    """A progress bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[phase]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
    )
    with progress:
        task = progress.add_task(name, total=100, phase="")
        yield lambda percent, phase: progress.update(task, completed=percent, phase=phase)
