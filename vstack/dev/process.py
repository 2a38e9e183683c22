"""One child process: its own process group, a bounded log file, an orderly end.

Invariants: a child never outlives its supervisor, even one that was killed with SIGKILL (the kernel sends the child
`orphan_signal`); a log and its predecessor together never exceed twice LOG_BYTES.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from vstack.errors import SettingsError

LOG_BYTES: Final = 8 * 1024 * 1024
STOP_TIMEOUT_S: Final = 10.0
DRAIN_TIMEOUT_S: Final = 1.0
_PIECE_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 4096


class BoundedLog:
    """An append-only file that is moved to `<name>.1` when it is full."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._tail = b""

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if self._file.tell() + len(data) > self._limit_bytes:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            full, self._file = self._file, self._path.open("ab", buffering=0)
            full.close()
        self._file.write(data)

    def last_line(self) -> str:
        """The last line written in this run, "" before the first."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        self._file.close()


class Process:
    """A program that can be started, killed and started again under one name."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """`directory` has the folders `logs` and `run`. `prefix` is a program that execs the rest of its arguments."""
        self.name = name
        self._arguments = [*prefix, "setpriv", "--pdeathsig", orphan_signal.name.removeprefix("SIG"), *arguments]
        self._log_path = directory / "logs" / f"{name}.log"
        self._pid_path = directory / "run" / f"{name}.pid"
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None
        self._log: BoundedLog | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def ended(self) -> bool:
        """True when it was started and is no longer running."""
        return self._process is not None and not self.running

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return self._log.last_line() if self._log is not None else ""

    async def start(self) -> None:
        """Start it; returns at once, before it is ready."""
        assert not self.running
        await self._finish()
        self._log = BoundedLog(self._log_path)
        try:
            # The caller's terminal sends Ctrl-C to a whole group: children are stopped by their supervisor instead.
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            self._log.close()
            raise SettingsError(f"cannot start {self.name}: {self._arguments[0]}: {error.strerror}") from error
        self._pid_path.write_text(f"{self._process.pid}\n")
        assert self._process.stdout is not None
        self._pump = asyncio.create_task(_copy(self._process.stdout, self._log))

    async def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal. Its output is in the log when this returns."""
        assert self._process is not None
        status = await self._process.wait()
        self._forget_pid(self._process.pid)
        if self._pump is not None:
            await asyncio.wait([self._pump], timeout=DRAIN_TIMEOUT_S)
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its group."""
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it: its stop signal, then SIGKILL for its whole group after `timeout_s`."""
        if self._process is not None and self.running:
            self.signal(self._stop_signal)
            try:
                await asyncio.wait_for(self._process.wait(), timeout_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        await self._finish()

    async def _finish(self) -> None:
        if self._pump is not None:
            # A grandchild that holds the pipe open must not hold us.
            await asyncio.wait([self._pump], timeout=DRAIN_TIMEOUT_S)
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
        if self._log is not None:
            self._log.close()
        if self._process is not None:
            self._forget_pid(self._process.pid)

    def _forget_pid(self, pid: int) -> None:
        """Remove the pid file unless it is already that of a successor: the number may soon belong to a stranger."""
        if self._pid_path.exists() and self._pid_path.read_text() == f"{pid}\n":
            self._pid_path.unlink()


async def _copy(source: asyncio.StreamReader, log: BoundedLog) -> None:
    while data := await source.read(_PIECE_BYTES):
        # On a full disk the log has a gap; a pipe that nobody reads would stop the service.
        with contextlib.suppress(OSError):
            log.write(data)


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
