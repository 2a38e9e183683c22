"""A real `vstack dev up` under test: started, driven through its command line, and certainly gone afterwards."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vstack.dev.ports import Ports
from vstack.errors import SettingsError

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 40.0
COMMAND_TIMEOUT_S = 120.0
POLL_S = 0.05

# All ports of a cluster stay below those that the kernel gives to outgoing connections.
OFFSETS = range(2000, 22000)


def free_offset(nodes: int) -> int:
    """A port offset at which a cluster finds all its ports free right now."""
    while True:
        offset = random.choice(OFFSETS)
        with contextlib.suppress(SettingsError):
            Ports.plan(nodes, offset).check_free()
            return offset


def until(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until a condition on other processes holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"still waiting for {what}"
        time.sleep(POLL_S)


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@dataclass
class Endpoints:
    """The line that `vstack dev up` printed."""

    metadata: list[str]
    storage: list[str]
    uploader: str
    client: str


class DevCluster:
    """One data directory, and the process that serves it while it runs."""

    def __init__(self, directory: Path, nodes: int = 5) -> None:
        self.directory = directory
        self.nodes = nodes
        self.offset = free_offset(nodes)
        self.process: subprocess.Popen[str] | None = None
        self.line = ""
        self._stderr: list[str] = []

    @property
    def endpoints(self) -> Endpoints:
        fields = json.loads(self.line)
        assert fields.pop("ready") is True
        return Endpoints(**fields)

    @property
    def stderr(self) -> str:
        return "".join(self._stderr)

    def start(self) -> None:
        """Run it; returns when it has said that everything is healthy."""
        # A test run that is killed takes its cluster with it.
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "vstack", "dev", "up"]
        command += ["--data-dir", str(self.directory)]
        command += ["--nodes", str(self.nodes), "--port-offset", str(self.offset)]
        self._stderr = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._collect, args=[self.process], daemon=True).start()
        watchdog = threading.Timer(START_TIMEOUT_S, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        watchdog.cancel()
        assert self.line, f"dev up ended with {self.process.wait()}: {self.stderr}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a client command against this cluster and check its exit status."""
        return self.vstack(*arguments, "--port-offset", str(self.offset), status=status)

    def vstack(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run any `vstack` command and check its exit status."""
        command = [sys.executable, "-m", "vstack", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def upload(self, file: Path, title: str) -> str:
        """The id of the stored video."""
        return self.run("upload", str(file), "--title", title).stdout.splitlines()[-1]

    def play(self, video_id: str, output: Path) -> bytes:
        """The bytes of a whole playback."""
        self.run("play", video_id, "--speed", "0", "--output", str(output))
        return output.read_bytes()

    def pid(self, name: str) -> int:
        return int((self.directory / "run" / f"{name}.pid").read_text())

    def name_of(self, url: str) -> str:
        """The name of the storage node at a URL."""
        return f"storage-{self.endpoints.storage.index(url) + 1}"

    def kill(self, name: str) -> None:
        """SIGKILL one service; returns when the supervisor has seen it."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: f"(process {pid}) was ended by SIGKILL" in self.stderr, f"the end of {name}")

    def revive(self) -> None:
        """Start again what is down; returns when every node is healthy."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        until(self.healthy, "healthy nodes")

    def healthy(self) -> bool:
        """Whether every node answers, and the metadata service calls it healthy (the dead too, for a while)."""
        if not all(answers(f"{url}/ping") for url in self.endpoints.storage):
            return False
        command = [sys.executable, "-m", "vstack", "nodes", "--json", "--port-offset", str(self.offset)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        if done.returncode != 0:
            return False
        nodes = json.loads(done.stdout)["nodes"]
        return {node["node_url"] for node in nodes if node["status"] == "healthy"} == set(self.endpoints.storage)

    def processes(self) -> list[str]:
        """Every process on this machine that works in or was told of the directory, except the supervisor's caller."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                place = str((entry / "cwd").readlink())
                if str(self.directory) in words or place.startswith(str(self.directory)):
                    found.append(f"{entry.name} {words}")
        return found

    def _collect(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self._stderr.append(line)


@contextlib.contextmanager
def dev_cluster(directory: Path, nodes: int = 5) -> Iterator[DevCluster]:
    """A cluster that runs inside the block."""
    cluster = DevCluster(directory, nodes)
    cluster.start()
    try:
        yield cluster
    finally:
        assert cluster.process is not None
        if cluster.process.poll() is None:
            cluster.stop()
        assert cluster.processes() == []
