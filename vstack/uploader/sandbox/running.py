"""Runs ffmpeg or ffprobe as a job (`sandbox.job`) and reads what it writes.

Invariants: when `run` is left, by whatever way, the program is dead and nothing of ours is open: leaving closes the
connection, and a job ends with its connection, also when this process is killed. Memory is one pipe buffer of output
and the head of the messages.
"""

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import structlog

from vstack.errors import DiskError, InvalidMediaError, SettingsError, UnavailableError
from vstack.units import KIB
from vstack.uploader.sandbox import job
from vstack.uploader.sandbox.command import INPUT, THREADS, ToolName

PATIENCE_S: Final = 30.0
"""How long a job is asked for again: the unit's socket is away for a moment while it is restarted, or all are taken."""
RETRY_EVERY_S: Final = 0.25
EXIT_GRACE_S: Final = 10.0
ENDED_BY_OTHERS: Final = frozenset({-signal.SIGTERM, -signal.SIGKILL, 255})
"""How a program ends that the shutdown of the host, or of its unit, takes along. ffmpeg exits with 255 on a SIGTERM."""
_STDERR_HEAD_BYTES: Final = 4 * KIB
_PIPE_BUFFER_BYTES: Final = 256 * KIB
_MAX_ANSWER_BYTES: Final = 4 * KIB
_MESSAGE_CHARS: Final = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tool:
    """Which program, and who runs it: the unit behind `socket`, which knows its own path, else we the one at `path`."""

    name: ToolName
    path: str
    socket: str = ""


class Link:
    """Our end of the connection to a job."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection

    async def ask(self, request: object, descriptors: Sequence[int]) -> dict[str, object] | None:
        """The first answer; None where the job has gone before it gave one."""
        try:
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        except OSError:
            return None
        return await self._answer()

    async def status(self, patience_s: float) -> int | None:
        """The program's exit status; None where it has not ended in time. A job that was killed took it along."""
        try:
            async with asyncio.timeout(patience_s):
                status = (await self._answer() or {}).get("status")
        except TimeoutError:
            return None
        return status if isinstance(status, int) else -signal.SIGKILL

    async def end(self) -> bool:
        """Have the program killed; whether the job is known to have gone."""
        with suppress(OSError):  # it may have gone already
            self._connection.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_GRACE_S):
                while await self._answer() is not None:
                    pass
                return True
        return False

    async def _answer(self) -> dict[str, object] | None:
        """The next one; None when the job has gone."""
        with suppress(ConnectionResetError):
            if data := await asyncio.get_running_loop().sock_recv(self._connection, _MAX_ANSWER_BYTES):
                answer: dict[str, object] = json.loads(data)
                return answer
        return None


@dataclass(slots=True)
class Child:
    """A running program; `timeout_s` is what is left of the time it may keep its reader waiting."""

    pid: int
    timeout_s: float
    errors: bytearray
    _link: Link
    _output: asyncio.StreamReader
    _listening: asyncio.Task[None]

    async def read(self, size_bytes: int) -> bytes:
        """1 to `size_bytes` bytes of its output, none at the end. InvalidMediaError when its time is used up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._output.read(size_bytes)
        except TimeoutError as error:
            raise InvalidMediaError("working through the file took too long") from error
        finally:
            self.timeout_s -= loop.time() - started

    async def exit_status(self) -> int:
        """Its exit status, once its output has been read to the end; it is killed if it lingers."""
        status = await self._link.status(EXIT_GRACE_S)
        if status is None:
            await self._link.end()
            return -signal.SIGKILL
        await asyncio.wait([self._listening], timeout=EXIT_GRACE_S)
        return status


@asynccontextmanager
async def run(tool: Tool, args: Sequence[str], *, source: Path, timeout_s: float) -> AsyncIterator[Child]:
    """Start `tool` on the file `source`; `args` are its options after the input.

    SettingsError where it cannot be started, UnavailableError where no job is to be had. Time that the caller spends
    between reads is not counted against `timeout_s`: a slow consumer is not the file's fault.
    """
    request = {"tool": tool.name, "args": list(args), "cpu_s": int(timeout_s) * THREADS + 1}
    async with AsyncExitStack() as stack:
        output, to_output = await stack.enter_async_context(_pipe())
        messages, to_messages = await stack.enter_async_context(_pipe())
        with to_output, to_messages, _opened(source) as file:
            descriptors = [file.fileno(), to_output.fileno(), to_messages.fileno()]
            link, pid = await _started(stack, tool, request, descriptors)
        errors = bytearray()
        listening = asyncio.create_task(_keep_head(messages, errors), name=f"messages of {pid}")
        try:
            yield Child(pid, timeout_s, errors, link, output, listening)
        finally:
            listening.cancel()


def verdict(what: str, child: Child, status: int) -> InvalidMediaError | UnavailableError:
    """The error of a program that ended with `status`: `failure`, unless others ended it, which is not its doing."""
    if status in ENDED_BY_OTHERS:
        return UnavailableError("the work on the file was ended from outside")
    return failure(what, child)


def failure(what: str, child: Child) -> InvalidMediaError:
    """The error that says `what` went wrong and quotes the program's first complaint: later ones are consequences.

    Fit for the person who sent the file: one line, no paths, no addresses.
    """
    text = child.errors.decode("utf-8", "replace").replace(INPUT, "the file")
    reason = next((line for raw in text.splitlines() if (line := _clean(raw))), "")
    return InvalidMediaError(f"{what}: {reason[:_MESSAGE_CHARS]}" if reason else what)


def _clean(line: str) -> str:
    line = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\]\s*", "", line)
    line = re.sub(r"(?:\b\w+:)?(?<!\w)/[^\s'\":,]+", "...", line)
    return "".join(c for c in line if c.isprintable()).removeprefix("the file: ").strip()


async def _started(stack: AsyncExitStack, tool: Tool, request: object, descriptors: Sequence[int]) -> tuple[Link, int]:
    """A job that has started the program, and the program's process id; `stack` ends both."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with AsyncExitStack() as attempt:
                    link = await attempt.enter_async_context(_unit_job(tool) if tool.socket else _own_job(tool))
                    answer = None if link is None else await link.ask(request, descriptors)
                    if link is not None and answer is not None:
                        stack.push_async_exit(attempt.pop_all())
                        return link, _process_id(answer)
                await asyncio.sleep(RETRY_EVERY_S)
    except TimeoutError as error:
        raise UnavailableError("no media job is to be had") from error


def _process_id(answer: dict[str, object]) -> int:
    pid = answer.get("pid")
    if not isinstance(pid, int):
        raise SettingsError(str(answer.get("error")))
    return pid


@asynccontextmanager
async def _unit_job(tool: Tool) -> AsyncIterator[Link | None]:
    """A job that systemd starts because we connect; None where nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        link = Link(connection)
        try:
            connection.connect(tool.socket)
        except OSError as error:
            log.warning("media_unit_unreachable", socket=tool.socket, error=error.strerror)
            yield None
            return
        try:
            yield link
        finally:
            if not await link.end():
                log.error("media_job_lingers", socket=tool.socket)


@asynccontextmanager
async def _own_job(tool: Tool) -> AsyncIterator[Link]:
    """A job that is our child, in a session of its own: a Ctrl-C is for us, and we end it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", job.__name__, tool.name, tool.path),
                stdin=theirs.fileno(),
                start_new_session=True,
            )
        link = Link(ours)
        try:
            yield link
        finally:
            if not await link.end():
                process.kill()
            await process.wait()


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """A pipe that is read here; its other end, to be passed on and closed by the caller.

    It is a pair of sockets: of a pipe's descriptor uvloop and its file object believe both that they own it, and close
    it one after the other. In between, another thread's file may have taken its number.
    """
    reading, writing = socket.socketpair()
    with writing:
        reader, writer = await asyncio.open_connection(sock=reading, limit=_PIPE_BUFFER_BYTES)
        try:
            yield reader, writing
        finally:
            writer.transport.abort()


def _opened(source: Path) -> FileIO:
    try:
        return FileIO(source, "rb")
    except OSError as error:
        raise DiskError(f"cannot read the received file: {error.strerror}") from error


async def _keep_head(messages: asyncio.StreamReader, head: bytearray) -> None:
    """Reading on is what keeps a talkative program from blocking."""
    while data := await messages.read(_STDERR_HEAD_BYTES):
        head += data[: _STDERR_HEAD_BYTES - len(head)]
