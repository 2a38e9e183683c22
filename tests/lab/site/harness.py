"""A whole site in the hosts lab: brought up by the playbooks, put under load, and broken on purpose.

Everything goes the operator's way: scripts/lab for the hosts, ansible-playbook for what is on them, the `vstack`
command and the load script for what users do. Their figures are printed, so that `scripts/test --lab -s` shows them.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / ".venv-deploy" / "bin"
PLAYBOOK_TIMEOUT_S: Final = 1800.0
HEAL_TIMEOUT_S: Final = 180.0
LOAD_TIMEOUT_S: Final = 240.0
POLL_S: Final = 0.5

# Begins uploads, over and over; a line for each that the database has.
_WRITER: Final = """
import sys, time, urllib.request
while True:
    request = urllib.request.Request(
        sys.argv[1] + "/video", b'{"title": "a write"}', {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
        print(time.monotonic(), flush=True)
    except OSError:
        pass
    time.sleep(0.2)
"""

_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_PHASE = re.compile(r"^(\S+) -{3,} ([\d.]+)s$", re.MULTILINE)


def until(condition: Callable[[], bool], what: str, timeout_s: float = HEAL_TIMEOUT_S) -> float:
    """Wait until a condition on other machines holds; how long that took, in seconds."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() < started_s + timeout_s, f"still waiting for {what} after {timeout_s:.0f} s"
        time.sleep(POLL_S)
    return time.monotonic() - started_s


@dataclass(frozen=True)
class Run:
    """One run of a playbook: its output, how long it took, and what it changed by host."""

    output: str
    status: int
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        return {host: int(changed) for host, _, changed, _, _ in _RECAP.findall(self.output)}

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by role."""
        return {name: float(seconds) for name, seconds in _PHASE.findall(self.output) if name != "total"}


@dataclass
class LoadReport:
    """What a steady load has to say; empty until it has ended."""

    uploads: dict[str, object] = field(default_factory=dict)
    playback: dict[str, object] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    """The videos whose uploads were acknowledged."""
    output: str = ""

    def require_no_failure(self) -> None:
        assert self.uploads["failed_uploads"] == 0, self.output
        assert self.playback["failed_clients"] == 0, self.output
        assert self.uploads["uploads"], "nothing was uploaded"
        assert self.playback["clients"], "nothing was played"


@dataclass
class Writes:
    """When the database took a write; empty until they have ended."""

    times_s: list[float] = field(default_factory=list)

    @property
    def longest_gap_s(self) -> float:
        return max(later - earlier for earlier, later in itertools.pairwise(self.times_s))


@dataclass(frozen=True)
class Site:
    """A lab by name, and the inventory that says what its hosts are."""

    name: str
    inventory: Path
    workdir: Path
    extra: tuple[str, ...] = ()

    def lab(self, *words: str, timeout_s: float = 300.0) -> str:
        """A command of scripts/lab."""
        done = subprocess.run(
            [ROOT / "scripts/lab", "--name", self.name, *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"scripts/lab {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    def up(self, *hosts: str) -> None:
        """Boot hosts (HOST[:DISKS[:SIZE_MB]]), and write down how Ansible reaches all of the lab."""
        self.lab("up", *hosts, timeout_s=900)
        self._write_hosts()

    def down(self, *hosts: str) -> None:
        """Take hosts away for good."""
        self.lab("down", *hosts)
        self._write_hosts()

    def _write_hosts(self) -> None:
        self.hosts_file.write_text(self.lab("inventory"), encoding="utf-8")

    @property
    def hosts_file(self) -> Path:
        return self.workdir / f"{self.name}.yml"

    def address(self, host: str) -> str:
        return re.search(rf"^    {host}:\n\s+ansible_host: (\S+)", self.hosts_file.read_text(), re.MULTILINE)[1]  # type: ignore[index]

    def playbook(self, name: str, *arguments: str, check: bool = True) -> Run:
        """Run ansible/playbooks/NAME.yml on the site. `check`: it must succeed."""
        started_s = time.monotonic()
        done = subprocess.run(
            [
                DEPLOY / "ansible-playbook",
                # The site first: the inventory that names a host first is what its playbooks call the site.
                *("-i", str(self.inventory), "-i", str(self.hosts_file)),
                f"playbooks/{name}.yml",
                *(f"-e{extra}" for extra in self.extra),
                *arguments,
            ],
            cwd=ROOT / "ansible",
            env=os.environ
            | {
                "PATH": f"{DEPLOY}:{os.environ['PATH']}",
                "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_roles",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_HOME": str(self.workdir / "ansible"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAYBOOK_TIMEOUT_S,
            check=False,
        )
        run = Run(done.stdout, done.returncode, time.monotonic() - started_s)
        (self.workdir / f"{name}.log").write_text(run.output, encoding="utf-8")
        assert not check or run.status == 0, run.output[-8000:]
        return run

    def vstack(self, *words: str, timeout_s: float = 300.0) -> str:
        """The `vstack` command, inside the lab's network."""
        return self.lab("exec", "--", str(ROOT / ".venv/bin/vstack"), *words, timeout_s=timeout_s).strip()

    @property
    def metadata_options(self) -> list[str]:
        urls = [f"http://{self.address(host)}:8080" for host in ("meta1", "meta2")]
        return [word for url in urls for word in ("--metadata", url)]

    @property
    def uploader_url(self) -> str:
        return f"http://{self.address('meta2')}:8084"

    def upload(self, file: Path, title: str) -> str:
        """Store a video; its id."""
        options = [*self.metadata_options, "--uploader", self.uploader_url]
        return self.vstack("upload", str(file), "--title", title, *options).splitlines()[-1]

    def play(self, video_id: str, output: Path) -> None:
        """Play a video as fast as possible into a file."""
        self.vstack("play", video_id, "--speed", "0", "--output", str(output), *self.metadata_options)

    def nodes(self) -> list[dict[str, object]]:
        """What the metadata service says of the storage nodes; none while it does not answer."""
        try:
            return list(json.loads(self.vstack("nodes", "--json", *self.metadata_options))["nodes"])
        except AssertionError:
            return []

    def healthy_nodes(self) -> int:
        return sum(node["status"] == "healthy" for node in self.nodes())

    def until_healthy(self, nodes: int) -> float:
        """Wait until this many storage nodes are healthy; how long that took."""
        return until(lambda: self.healthy_nodes() == nodes, f"{nodes} healthy nodes")

    @contextlib.contextmanager
    def writes(self) -> Iterator[Writes]:
        """One write after another for as long as the block lasts."""
        words = ["exec", "--", sys.executable, "-c", _WRITER, f"http://{self.address('meta1')}:8080"]
        command = [str(ROOT / "scripts/lab"), "--name", self.name, *words]
        writes, log = Writes(), self.workdir / "writes.log"
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stdin=subprocess.DEVNULL) as process:
            try:
                until(lambda: log.stat().st_size > 0, "the first write")
                yield writes
            finally:
                process.terminate()
        writes.times_s = [float(line) for line in log.read_text().split()]

    @contextlib.contextmanager
    def load(self, file: Path, *, clients: int = 20, uploads: int = 3) -> Iterator[LoadReport]:
        """Viewers and uploads for as long as the block lasts. The report is filled when it ends."""
        figures, log = self.workdir / "load.json", self.workdir / "load.log"
        figures.unlink(missing_ok=True)
        command: Sequence[str] = [
            *(str(ROOT / "scripts/lab"), "--name", self.name, "exec", "--"),
            *(sys.executable, str(ROOT / "scripts/load_steady.py"), "--file", str(file), "--json", str(figures)),
            *("--clients", str(clients), "--uploads", str(uploads), "--rest", "3", "--uploader", self.uploader_url),
            *("--metadata", *self.metadata_options[1::2]),
        ]
        report = LoadReport()
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            try:
                until(lambda: "load is on" in log.read_text() or process.poll() is not None, "the load", LOAD_TIMEOUT_S)
                assert process.poll() is None, log.read_text()
                yield report
                process.terminate()
                process.wait(LOAD_TIMEOUT_S)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        report.output = log.read_text()
        loaded = json.loads(figures.read_bytes())
        report.uploads, report.playback, report.stored = loaded["uploads"], loaded["playback"], loaded["stored"]
        print(
            f"\n{report.uploads['uploads']} uploads ({report.uploads['failed_uploads']} failed), "
            f"{report.playback['clients']} playbacks ({report.playback['failed_clients']} failed), "
            f"stalls {report.playback['stalls']}, failovers {report.playback['failovers']}, "
            f"startup p95 {report.playback['startup_p95_s']:.2f} s"
        )
