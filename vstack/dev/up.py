"""`vstack dev up`: a cluster in the foreground until SIGINT, SIGTERM or SIGHUP; SIGUSR1 starts again what has ended."""

import asyncio
import json
import os
import signal
import sys

import msgspec

from vstack.dev.cluster import Cluster, Options, running
from vstack.dev.foreground import run_until_signal
from vstack.errors import VStackError


def up(options: Options) -> int:
    """Run until a signal; returns the exit status. Prints one line of JSON on stdout when everything is healthy."""
    run_until_signal(_up(options))
    return 0


async def _up(options: Options) -> None:
    revive = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, revive.set)
    async with running(options, _report) as cluster:
        sys.stdout.write(json.dumps(msgspec.to_builtins(cluster.endpoints)) + "\n")
        sys.stdout.flush()
        await _revive_on_request(cluster, revive)


async def _revive_on_request(cluster: Cluster, revive: asyncio.Event) -> None:
    while True:
        await revive.wait()
        revive.clear()
        try:
            await cluster.revive()
        except VStackError as error:
            _report(str(error))


def _report(sentence: str) -> None:
    sys.stderr.write(f"vstack: {sentence} (kill -USR1 {os.getpid()} starts again what is down)\n")
