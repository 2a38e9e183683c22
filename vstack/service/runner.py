"""Runs one service in this process: uvloop, one listening socket, orderly shutdown on SIGINT and SIGTERM.

Invariants: the socket listens only after every resource of the application is ready; a signal ends a service that is
still starting just as well; a process that cannot listen or start says so in one line and exits with status 1;
one that systemd's watchdog ends (SIGABRT), because its loop is blocked, prints what each of its threads was doing.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog
import uvloop
from aiohttp import web

from vstack.errors import SettingsError, VStackError
from vstack.service import systemd

SHUTDOWN_GRACE_S: Final = 5.0
KEEPALIVE_S: Final = 75.0

ENDED: Final[web.AppKey[asyncio.Future[None]]] = web.AppKey("ended", asyncio.Future)
"""Done when the process should end: by a signal, or with the error that `end` was given."""

Drain = Callable[[], Awaitable[None]]
DRAIN: Final[web.AppKey[Drain]] = web.AppKey("drain")
"""What a service finishes after a signal, while it still listens; it bounds its own time."""

log = structlog.get_logger()


def run(make_app: Callable[[], Awaitable[web.Application]], host: str, port: int) -> int:
    """Serve until a signal; returns the exit status."""
    faulthandler.enable()
    try:
        return uvloop.run(_serve(make_app, host, port))
    except VStackError as error:
        sys.stderr.write(f"vstack: {error}\n")
        return 1


async def _serve(make_app: Callable[[], Awaitable[web.Application]], host: str, port: int) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not ended.done():
            ended.set_result(None)
        if not listening.is_set():
            work.cancel()

    listening = asyncio.Event()
    work = asyncio.create_task(_work(make_app, host, port, ended, listening))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not ended.done():
            raise
    return 0


async def _work(
    make_app: Callable[[], Awaitable[web.Application]],
    host: str,
    port: int,
    ended: asyncio.Future[None],
    listening: asyncio.Event,
) -> None:
    with systemd.managed() as manager:
        app = await make_app()
        app[ENDED] = ended
        async with serving(app, host, port):
            listening.set()
            log.info("listening", host=host, port=port)
            manager.ready(f"listening on {host}:{port}")
            await ended
            log.info("stopping")
            if (drain := app.get(DRAIN)) is not None:
                manager.draining()
                await drain()
            manager.closing()


def end(app: web.Application, error: VStackError) -> None:
    """End the service because of `error`: it says so in one line and exits with status 1."""
    ended = app.get(ENDED)
    if ended is not None and not ended.done():
        ended.set_exception(error)


@contextlib.asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[web.AppRunner]:
    """Serve `app` inside the block; yields the runner. A port that is taken is a SettingsError.

    A request in flight has SHUTDOWN_GRACE_S to end.
    """
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=SHUTDOWN_GRACE_S
    )
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, reuse_address=True, backlog=1024).start()
        except OSError as error:
            # asyncio wraps the reason in a sentence of its own; errors of name resolution have no positive number.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise SettingsError(f"cannot listen on {host}:{port}: {reason}") from error
        yield runner
    finally:
        await runner.cleanup()
