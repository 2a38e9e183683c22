"""`vstack dev up`: a cluster in the foreground until SIGINT, SIGTERM or SIGHUP; SIGUSR1 starts again what has ended."""

import asyncio
import os
import signal
import sys

import msgspec

from vstack.dev.cluster import Cluster, Options, running
from vstack.errors import VStackError


def up(options: Options) -> int:
    """Run until a signal; returns the exit status. Prints one line of JSON on stdout when everything is healthy."""
    return asyncio.run(_up(options))


async def _up(options: Options) -> int:
    stopped = asyncio.Event()
    revived = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, revived.set)
    work = asyncio.create_task(_serve(options, revived))
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.result()
    return 0


async def _serve(options: Options, revived: asyncio.Event) -> None:
    async with running(options, _report) as cluster:
        sys.stdout.write(msgspec.json.encode(cluster.endpoints).decode() + "\n")
        sys.stdout.flush()
        await _revive_on_request(cluster, revived)


async def _revive_on_request(cluster: Cluster, revived: asyncio.Event) -> None:
    while True:
        await revived.wait()
        revived.clear()
        try:
            await cluster.revive()
        except VStackError as error:
            _report(str(error))


def _report(sentence: str) -> None:
    sys.stderr.write(f"vstack: {sentence} (kill -USR1 {os.getpid()} starts again what is down)\n")
