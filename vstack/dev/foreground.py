"""Runs a coroutine in the foreground until it ends or a signal says so."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_signal(work: Coroutine[object, object, None]) -> bool:
    """True when `work` ended by itself, False when SIGINT, SIGTERM or SIGHUP cancelled it and it has cleaned up."""
    return asyncio.run(_run(work))


async def _run(work: Coroutine[object, object, None]) -> bool:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    for number in STOP_SIGNALS:
        # Further signals change nothing: stopping has deadlines of its own.
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if task.cancelled():
        return False
    task.result()
    return True
