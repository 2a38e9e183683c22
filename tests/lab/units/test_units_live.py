"""The units under a real systemd: they work sealed off as they are, and come back from whatever happens to them."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAB = "units"
HOST = "u1"
DISKS = ("d1", "d2", "d3")
DISK_MB = 400
STORAGE = tuple(f"vstack-storage@{disk}.service" for disk in DISKS)
SERVICES = ("vstack-metadata.service", *STORAGE, "vstack-uploader.service", "vstack-client.service")
EXPOSURE_AT_MOST = 2.0
O_DIRECT = 0o40000
TIMEOUT_S = 300.0
POLL_S = 0.5

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]


def lab(*words: str, data: bytes | None = None, check: bool = True, timeout_s: float = 900) -> str:
    command = [str(ROOT / "scripts/lab"), "--name", LAB, *words]
    done = subprocess.run(command, input=data or b"", capture_output=True, timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stderr.decode()}{done.stdout.decode()}"
    return done.stdout.decode().strip()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something on the host."""
    give_up_at_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < give_up_at_s, f"still waiting for {what}"
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Host:
    """The host, by its shell."""

    def sh(self, script: str, *, check: bool = True) -> str:
        return lab("shell", HOST, script, check=check)

    def vstack(self, *words: str) -> str:
        return self.sh(f"/opt/vstack/current/bin/vstack {shlex.join(words)}")

    def show(self, unit: str, name: str) -> str:
        return self.sh(f"systemctl show --property {name} --value {shlex.quote(unit)}")

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def is_active(self, *units: str) -> bool:
        states = self.sh(f"systemctl is-active {shlex.join(units)}", check=False).split()
        return states == ["active"] * len(units)

    def healthy_nodes(self) -> int:
        script = "/opt/vstack/current/bin/vstack nodes --json || echo '{\"nodes\": []}'"
        nodes = json.loads(self.sh(script, check=False))["nodes"]
        return sum(node["status"] == "healthy" for node in nodes)

    def until_healthy(self) -> None:
        until(lambda: self.is_active(*SERVICES), "all services")
        until(lambda: self.healthy_nodes() == len(DISKS), "all nodes")

    def media_jobs(self) -> list[str]:
        listed = self.sh("systemctl list-units --all --plain --no-legend 'vstack-media@*'")
        return [line.split()[0] for line in listed.splitlines()]

    def ffmpeg(self) -> int:
        """The process id of the program of a media job, 0 while there is none."""
        return int(self.sh("pgrep --newest --exact --uid vstack-media ffmpeg", check=False) or 0)

    def status_of(self, title: str) -> str:
        videos = json.loads(self.vstack("videos", "--json"))
        return next((video["status"] for video in videos if video["title"] == title), "")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("release")
    release = [str(ROOT / "scripts/release"), "--output", str(directory), "--label", "units"]
    subprocess.run(release, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    lab("cache", timeout_s=1800)
    lab("down")
    try:
        lab("up", f"{HOST}:{len(DISKS)}:{DISK_MB}")
        host = Host()
        (archive,) = directory.glob("*.tar.gz")
        lab("shell", HOST, "cat >/root/release.tar.gz", data=archive.read_bytes())
        lab("shell", HOST, "cat >/root/install.sh", data=Path(__file__).with_name("install.sh").read_bytes())
        host.sh(f"bash /root/install.sh {' '.join(DISKS)}")
        size = "testsrc2=size=1280x720:rate=25"
        host.sh(f"ffmpeg -v error -f lavfi -i {size}:duration=10 -c:v libx264 -preset ultrafast /root/short.mp4")
        host.sh(f"ffmpeg -v error -f lavfi -i {size}:duration=60 -c:v mpeg4 -q:v 5 /root/convert.avi")
        yield host
    finally:
        lab("down")


@pytest.fixture
def host(installed: Host) -> Host:
    installed.until_healthy()
    return installed


def test_a_video_is_stored_and_played(host: Host) -> None:
    video = host.vstack("upload", "/root/short.mp4", "--title", "first").splitlines()[-1]
    assert host.status_of("first") == "active"
    host.vstack("play", video, "--speed", "0", "--output", "/root/played.mp4")
    assert host.sh("ffprobe -v error -show_entries format=duration -of csv=p=0 /root/played.mp4").startswith("10.")
    assert host.media_jobs() == []


@pytest.mark.parametrize("unit", SERVICES)
def test_services_are_sealed_off(host: Host, unit: str) -> None:
    text = host.sh(f"systemd-analyze security --no-pager {unit}")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert exposure is not None
    print(f"\n{unit}: {exposure[1]}")
    assert float(exposure[1]) <= EXPOSURE_AT_MOST
    status = host.sh(f"cat /proc/{host.pid(unit)}/status")
    assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s2$", status, re.MULTILINE)


@pytest.mark.parametrize("unit", STORAGE)
def test_disks_are_read_and_written_directly(host: Host, unit: str) -> None:
    script = f"cd /proc/{host.pid(unit)}; for f in fd/*; do echo $(readlink $f) $(grep flags: fdinfo/${{f#fd/}}); done"
    lines = [line.split() for line in host.sh(script, check=False).splitlines()]
    superblocks = [int(line[-1], 8) for line in lines if re.search(r"/node/\d+\.superblock$", line[0])]
    assert superblocks
    assert all(flags & O_DIRECT for flags in superblocks)


def test_a_media_job_sees_nothing_and_ends_with_the_uploader(host: Host) -> None:
    host.sh("systemd-run --quiet --collect /opt/vstack/current/bin/vstack upload /root/convert.avi --title long")
    until(lambda: host.ffmpeg() > 0, "ffmpeg")
    pid = host.ffmpeg()
    interfaces = host.sh(f"tail -n +3 /proc/{pid}/net/dev | cut -d: -f1").split()
    assert interfaces == ["lo"]
    for directory in ("etc/vstack", "srv", "var", "run/vstack", "root", "home"):
        assert host.sh(f"ls -A /proc/{pid}/root/{directory}") == "", directory
    links = host.sh(f"cd /proc/{pid}/fd; for f in *; do echo $f $(readlink $f); done").splitlines()
    names = dict(line.split(maxsplit=1) for line in links)
    assert names["0"].startswith("/var/lib/vstack/uploader/incoming/")
    assert not any(name.startswith("socket:") for name in names.values())
    host.sh(f"kill -KILL {host.pid('vstack-uploader')}")
    until(lambda: host.media_jobs() == [], "the end of the job")
    assert host.sh(f"ls -d /proc/{pid}", check=False) == ""
    until(lambda: host.status_of("long") == "active", "the upload to go on")


def test_no_other_user_can_have_media_jobs(host: Host) -> None:
    script = "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('/run/vstack/media.sock')"
    for user in ("nobody", "vstack-media"):
        answer = host.sh(f"setpriv --reuid {user} --clear-groups python3 -c {shlex.quote(script)} 2>&1", check=False)
        assert "PermissionError" in answer


@pytest.mark.parametrize("unit", [STORAGE[0], "vstack-metadata.service", "vstack-uploader.service"])
def test_a_blocked_service_is_started_again(host: Host, unit: str) -> None:
    """Stopped, its loop does not turn. The watchdog notices, and the journal says what every thread was doing."""
    before = host.pid(unit)
    host.sh(f"kill -STOP {before}")
    until(lambda: host.pid(unit) not in (0, before), "another process")
    journal = host.sh(f"journalctl --unit {unit} --boot --output cat")
    assert "Failed with result 'watchdog'" in journal
    assert "most recent call first" in journal
    host.until_healthy()


def test_a_node_comes_and_goes_with_its_disk(host: Host) -> None:
    host.sh("systemctl stop srv-vstack-d2.mount")
    assert not host.is_active(STORAGE[1])
    host.sh("systemctl start srv-vstack-d2.mount")
    host.until_healthy()


def test_metadata_starts_without_its_database(host: Host) -> None:
    host.sh("systemctl stop postgresql; systemctl restart vstack-metadata")
    assert host.is_active("vstack-metadata.service")
    host.sh("systemctl start postgresql")
    host.until_healthy()


def test_all_is_well_after_a_reboot(host: Host) -> None:
    lab("reboot", HOST)
    host.until_healthy()
    assert host.sh("systemctl --failed --no-legend") == ""
    host.vstack("upload", "/root/short.mp4", "--title", "after the reboot")


def test_the_target_stops_everything(host: Host) -> None:
    host.sh("systemctl stop vstack.target")
    until(lambda: not any(host.is_active(unit) for unit in SERVICES), "the end of all services")
    assert host.sh("pgrep --list-full --uid vstack,vstack-media", check=False) == ""
    host.sh("systemctl start vstack.target")
    host.until_healthy()
