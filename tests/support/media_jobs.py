"""What vstack-media.socket does, without systemd: every connection becomes one `vstack media-job`."""

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def listening(ffmpeg: str, ffprobe: str) -> Iterator[str]:
    """The path of a socket that starts jobs with these programs; at the end no job is left."""
    command = [sys.executable, "-m", "vstack", "media-job", "--ffmpeg", ffmpeg, "--ffprobe", ffprobe]
    jobs: list[subprocess.Popen[bytes]] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                jobs.append(subprocess.Popen(command, stdin=connection.fileno()))
            for job in jobs:
                job.poll()

    # Not under tmp_path: the name of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        path = Path(directory) / "media.sock"
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield str(path)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for job in jobs:
                job.wait(20)
