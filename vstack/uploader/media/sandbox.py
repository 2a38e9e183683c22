"""Child processes that read files from strangers: bounded in memory, CPU, time and output, and never left behind.

Invariants: when `run` is left, by whatever way, the child's whole process group is dead and reaped. The child inherits
no environment but PATH and no descriptor but its pipes; it can write no file (RLIMIT_FSIZE is 0, pipes are exempt).

Limits are set with prlimit(2) right after the spawn. That needs no code between fork and exec, which is unsafe with
threads, and no wrapper program; the few instructions that ran before belong to the dynamic loader, long before the
input is opened. The network is closed by the protocol whitelist of `FORMAT_GUARD`, which holds for root, ordinary users
and inside containers alike; the unit file that runs the uploader adds the kernel's own barrier.
"""

import asyncio
import os
import re
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vstack.errors import InvalidMediaError, SettingsError
from vstack.units import GIB, KIB
from vstack.uploader.media.model import THREADS

FORMAT_GUARD: Final = (
    *("-protocol_whitelist", "file,pipe"),
    *("-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv"),
)
"""Input options for ffprobe and ffmpeg: without both, a playlist renamed .mp4 makes them open what it names."""

_ADDRESS_SPACE_BYTES: Final = 4 * GIB
_OPEN_FILES: Final = 64
_STDERR_HEAD_BYTES: Final = 4 * KIB
_PIPE_BUFFER_BYTES: Final = 256 * KIB
_MESSAGE_CHARS: Final = 200
_EXIT_GRACE_S: Final = 10.0
# Without a bound on arenas glibc reserves 64 MiB of address space for each thread.
_ENVIRONMENT: Final = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(slots=True)
class Child:
    """A running child; `timeout_s` is what is left of the time it may keep its reader waiting."""

    process: asyncio.subprocess.Process
    timeout_s: float
    errors: bytearray

    @property
    def output(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    async def read(self, size_bytes: int) -> bytes:
        """1 to `size_bytes` bytes of its output, none at the end. InvalidMediaError when its time is used up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.output.read(size_bytes)
        except TimeoutError as error:
            raise InvalidMediaError("working through the file took too long") from error
        finally:
            self.timeout_s -= loop.time() - started

    async def exit_status(self) -> int:
        """Its exit status, once its output has been read to the end; it is killed if it lingers."""
        try:
            async with asyncio.timeout(_EXIT_GRACE_S):
                return await self.process.wait()
        except TimeoutError:
            _kill_group(self.process)
            return await self.process.wait()


@asynccontextmanager
async def run(args: list[str], *, timeout_s: float) -> AsyncIterator[Child]:
    """Start `args` (a program and its arguments, no shell) with its output on a pipe.

    SettingsError where the program cannot be started. Time that the caller spends between reads is not counted
    against `timeout_s`: a slow consumer is not the file's fault.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
            limit=_PIPE_BUFFER_BYTES,
        )
    except OSError as error:
        raise SettingsError(f"cannot run {args[0]}: {error.strerror}") from error
    child = Child(process, timeout_s, bytearray())
    drain = asyncio.create_task(_drain(child), name=f"stderr of {process.pid}")
    try:
        _limit(process.pid, cpu_s=int(timeout_s) * THREADS + 1)
        yield child
    finally:
        _kill_group(process)
        while await child.output.read(_PIPE_BUFFER_BYTES):
            pass  # the process counts as ended only once its pipes are read to their ends
        await drain
        await process.wait()


def failure(what: str, child: Child, path: Path) -> InvalidMediaError:
    """The error that says `what` went wrong and quotes the child's first complaint: later ones are consequences.

    Fit for the person who sent the file: one line, no paths, no addresses.
    """
    text = child.errors.decode("utf-8", "replace").replace(f"file:{path}", "the file").replace(str(path), "the file")
    reason = next((line for raw in text.splitlines() if (line := _clean(raw))), "")
    return InvalidMediaError(f"{what}: {reason[:_MESSAGE_CHARS]}" if reason else what)


def _clean(line: str) -> str:
    line = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\]\s*", "", line)
    line = re.sub(r"(?:\b\w+:)?(?<!\w)/[^\s'\":,]+", "...", line)
    return "".join(c for c in line if c.isprintable()).removeprefix("the file: ").strip()


async def _drain(child: Child) -> None:
    """Keep the head of stderr; reading on is what keeps a talkative child from blocking."""
    assert child.process.stderr is not None
    while data := await child.process.stderr.read(_STDERR_HEAD_BYTES):
        child.errors += data[: _STDERR_HEAD_BYTES - len(child.errors)]


def _limit(pid: int, *, cpu_s: int) -> None:
    limits = {
        resource.RLIMIT_AS: _ADDRESS_SPACE_BYTES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    with suppress(ProcessLookupError):  # it may have ended already
        for kind, wanted in limits.items():
            _, hard = resource.prlimit(pid, kind)
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.prlimit(pid, kind, (value, value))


def _kill_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):  # it may have ended and only wait to be reaped
        os.killpg(process.pid, signal.SIGKILL)
