"""Tells systemd how this process is: ready, stopping, what it does, and that its event loop turns (sd_notify).

Invariants: the watchdog is fed by the event loop and nothing else, so a loop that is blocked goes hungry and systemd
restarts the service; without $NOTIFY_SOCKET nothing happens at all; a message that cannot be sent stops no service.

Why no library: the protocol is one datagram of lines (sd_notify(3)), and what it takes is less than a dependency costs.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

EXTEND_EVERY_S: Final = 10.0
EXTENSION_S: Final = 3 * EXTEND_EVERY_S
"""How much more time each tick asks for while the service starts or drains."""
MAX_EXTENDED_S: Final = 1800.0
"""A start or drain that is still not over then is taken for stuck: the unit's own time limit gets its way."""
SEND_TIMEOUT_S: Final = 1.0
_MORE_TIME: Final = f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}"

log = structlog.get_logger()


class Manager:
    """The service manager's view of this process. Made by `managed`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environment)
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_TIMEOUT_S)
        self._extended_until_s = self._loop.time() + MAX_EXTENDED_S
        self._next_tick: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """The service listens; `status` is a line for people (systemctl status)."""
        self._extended_until_s = 0.0
        self._send("READY=1", f"STATUS={status}")

    def draining(self) -> None:
        """The service has been told to stop and finishes what has begun; it bounds that itself."""
        self._extended_until_s = self._loop.time() + MAX_EXTENDED_S
        self._send("STOPPING=1", "STATUS=finishing what has begun", _MORE_TIME)

    def closing(self) -> None:
        """What is left to do fits the unit's own time limit, or EXTENSION_S after a long drain."""
        self._extended_until_s = 0.0
        self._send("STOPPING=1", "STATUS=closing", _MORE_TIME)

    def start(self) -> None:
        if self._address:
            self._send("STATUS=starting")
            self._tick()

    def close(self) -> None:
        if self._next_tick is not None:
            self._next_tick.cancel()
        self._socket.close()

    def _tick(self) -> None:
        lines = ["WATCHDOG=1"] if self._watchdog_s else []
        if self._loop.time() < self._extended_until_s:
            lines.append(_MORE_TIME)
        self._send(*lines)
        # Half of the time, as sd_watchdog_enabled(3) advises: one late tick is forgiven.
        interval_s = min(self._watchdog_s / 2 or EXTEND_EVERY_S, EXTEND_EVERY_S)
        self._next_tick = self._loop.call_later(interval_s, self._tick)

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("systemd_not_told", lines=lines, error=str(error))


@contextlib.contextmanager
def managed(environment: Mapping[str, str] = os.environ) -> Iterator[Manager]:
    """A block in which systemd is told that this process is alive; it counts as starting until `ready`."""
    manager = Manager(environment)
    try:
        manager.start()
        yield manager
    finally:
        manager.close()


def _address(name: str) -> str:
    """Of the socket; @ begins a name in the abstract namespace. Other kinds (of virtual machines) are not for us."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """How long the watchdog waits; 0 where there is none, or it is meant for another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0.0
