"""One job: run ffmpeg or ffprobe for whoever is at the other end of standard input, a connected SOCK_SEQPACKET socket.

    request   {"tool": "ffprobe", "args": [...], "cpu_s": 60} with three descriptors: input, output, messages
    answers   {"pid": 123}, then {"status": 0} when it has ended; or {"error": "..."} when it was not started

Invariants: only the programs that the job's own command line names are run; the program has no descriptor but its
input and its two pipes, no environment of ours, no way to write to a file, and limits from its first instruction on;
when the other end closes its side, or ends in whatever way, the program's whole process group is killed; the last
answer is given when the program has been reaped.

A process is started for every job, so this imports little.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from vstack.units import GIB, KIB
from vstack.uploader.sandbox.command import ENVIRONMENT, command

MAX_REQUEST_BYTES: Final = 64 * KIB
DESCRIPTORS: Final = 3
ADDRESS_SPACE_BYTES: Final = 4 * GIB
OPEN_FILES: Final = 64


class RefusedError(Exception):
    """The request cannot be served; the message is for the log of whoever sent it."""


def main(descriptor: int, programs: Mapping[str, str]) -> int:
    """Serve the request on a connection; `programs` are the paths of the tools. Nothing is left when it returns."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        serve(connection, programs)
    return 0


def serve(connection: socket.socket, programs: Mapping[str, str]) -> None:
    """One request, to its end."""
    try:
        pid = _start(connection, programs)
    except RefusedError as error:
        _answer(connection, {"error": str(error)})
        return
    _answer(connection, {"pid": pid})
    _wait(connection, pid)
    # Not reaped yet, so neither its number nor that of its group can belong to others.
    os.killpg(pid, signal.SIGKILL)
    _answer(connection, {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


def _start(connection: socket.socket, programs: Mapping[str, str]) -> int:
    data, descriptors, flags, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, DESCRIPTORS)
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) != DESCRIPTORS:
            raise RefusedError(f"a request has {DESCRIPTORS} descriptors and at most {MAX_REQUEST_BYTES} bytes")
        tool, args, cpu_s = _decode(data)
        if tool not in programs:
            raise RefusedError(f"this job does not run {tool}")
        _limit(cpu_s)
        return _spawn(command(tool, programs[tool], args), descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _decode(data: bytes) -> tuple[str, list[str], int]:
    try:
        request = json.loads(data)
        tool, args, cpu_s = request["tool"], request["args"], request["cpu_s"]
    except (ValueError, TypeError, LookupError) as error:
        raise RefusedError(f"no request: {error}") from error
    texts = isinstance(args, list) and all(isinstance(arg, str) and "\0" not in arg for arg in args)
    if not (texts and isinstance(tool, str) and type(cpu_s) is int and cpu_s > 0):
        raise RefusedError("no request: a field has the wrong type")
    return tool, args, cpu_s


def _limit(cpu_s: int) -> None:
    """Limits of this process, and so of the program that it starts. Pipes are exempt from that on files."""
    limits = {
        resource.RLIMIT_AS: ADDRESS_SPACE_BYTES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, wanted in limits.items():
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


def _spawn(args: list[str], descriptors: Sequence[int]) -> int:
    try:
        # The program opens its input by this name, too: that it may is clear before it complains of a broken file.
        os.close(os.open(f"/proc/self/fd/{descriptors[0]}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RefusedError(f"a media job may not open its input: {error.strerror}") from error
    try:
        return os.posix_spawnp(
            args[0],
            args,
            ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores, and ignored signals are inherited
        )
    except OSError as error:
        raise RefusedError(f"cannot run {args[0]}: {error.strerror}") from error


def _wait(connection: socket.socket, pid: int) -> None:
    """Until the program has ended, or anything happens at the other end: after its request it only ever leaves."""
    events = select.poll()
    with os.fdopen(os.pidfd_open(pid), "rb", buffering=0) as program:
        events.register(program, select.POLLIN)
        events.register(connection, select.POLLIN)
        events.poll()


def _answer(connection: socket.socket, answer: Mapping[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(json.dumps(answer).encode())


if __name__ == "__main__":
    sys.exit(main(sys.stdin.fileno(), {sys.argv[1]: sys.argv[2]}))
