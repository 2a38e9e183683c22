"""The two servers of the storage benchmark, each on one core, started and stopped by their process ids."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 20.0
SETTLE_TIMEOUT_S: Final = 60.0
REPOSITORY: Final = Path(__file__).resolve().parents[2]

NGINX_CONFIG: Final = """\
daemon off;
worker_processes 1;
worker_cpu_affinity {affinity};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile off;
  directio 4k;
  aio threads;
  output_buffers 2 1m;
  keepalive_requests 1000000;
  client_max_body_size 4m;
  client_body_buffer_size {body_buffer};
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {directory}/root;
    location / {{ dav_methods PUT; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server: where objects live, and the process whose CPU time counts."""

    name: str
    port: int
    pid: int
    prefix: str

    def path(self, name: str) -> str:
        return self.prefix + name

    def cpu_s(self) -> float:
        """CPU seconds of all threads of the process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until the process writes nothing, so that upkeep of an earlier run is not measured with the next."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        before = -1
        while (written := self._written_bytes()) != before and time.monotonic() < deadline:
            before = written
            time.sleep(0.5)

    def _written_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise SystemExit("the kernel does not account I/O per process")

    def metric(self, name: str) -> float:
        """One sample of /metrics."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        raise SystemExit(f"{url} has no {name}")


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started inside run on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def vstack(directory: Path, core: int, *, io_threads: int) -> Iterator[Peer]:
    """One storage node, with no metadata service to talk to."""
    port = free_port()
    directory.mkdir()
    (directory / "cluster.key").write_text("a key for the benchmark only")
    config = directory / "storage.toml"
    config.write_text(
        f'service = "storage"\nport = {port}\ndata_dir = "{directory}/data"\nio_threads = {io_threads}\n'
        f'cluster_key_file = "{directory}/cluster.key"\nmetadata_urls = ["http://127.0.0.1:9"]\n'
    )
    command = [sys.executable, "-m", "vstack", "storage", "--config", str(config)]
    with _process(command, core, directory / "log") as process:
        _await_listening(port, process, directory / "log")
        yield Peer("V-Stack", port, process.pid, "/chunk/")


@contextlib.contextmanager
def nginx(directory: Path, core: int, *, body_buffer: str) -> Iterator[Peer]:
    """One nginx master, which does nothing, and one worker, which counts."""
    port = free_port()
    (directory / "root").mkdir(parents=True)
    config = directory / "nginx.conf"
    config.write_text(
        NGINX_CONFIG.format(
            affinity=format(1 << core, "b"),
            directory=directory,
            user="user root;" if os.geteuid() == 0 else "",
            body_buffer=body_buffer,
            port=port,
        )
    )
    command = ["nginx", "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    with _process(command, core, directory / "log") as process:
        _await_listening(port, process, directory / "error.log")
        yield Peer("nginx", port, _only_child(process.pid), "/")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _process(command: list[str], core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with pinned(core), log.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        except FileNotFoundError as error:
            raise SystemExit(f"{command[0]} is not installed") from error
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _only_child(pid: int) -> int:
    """The worker, which the master forks a moment after it listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
        time.sleep(0.01)
    raise SystemExit(f"process {pid} has started no worker")


def _await_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen: {log.read_text()}")
