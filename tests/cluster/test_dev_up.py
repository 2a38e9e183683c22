"""`vstack dev up` from start to end: what it says, what it refuses, what it leaves, what it keeps."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dev_cluster import DevCluster, dev_cluster, free_offset, until
from vstack.dev.ports import Ports

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def refused(*arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """The one line with which `dev up` refuses to start."""
    command = [*prefix, sys.executable, "-m", "vstack", "dev", "up", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("vstack: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_it_prints_one_line_of_json(cluster: DevCluster) -> None:
    ports = Ports.plan(5, cluster.offset)
    nodes = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports.storage)
    assert cluster.line == (
        f'{{"ready": true, "metadata": ["http://127.0.0.1:{ports.metadata}"], "storage": [{nodes}], '
        f'"uploader": "http://127.0.0.1:{ports.uploader}", "client": "http://127.0.0.1:{ports.client}"}}\n'
    )


def test_everything_is_healthy_and_on_hosts_of_its_own(cluster: DevCluster) -> None:
    assert cluster.healthy()
    rows = cluster.run("nodes").stdout.splitlines()[1:]
    assert len(rows) == 5
    assert len({row.split()[3] for row in rows}) == 5


def test_secrets_are_for_the_owner_only(cluster: DevCluster) -> None:
    for path in [cluster.directory / "cluster.key", *(cluster.directory / "config").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_directory_in_use_is_refused(cluster: DevCluster) -> None:
    offset = free_offset(5)
    said = refused("--data-dir", str(cluster.directory), "--port-offset", str(offset))
    assert cluster.process is not None
    assert f"in use by the local cluster of process {cluster.process.pid}" in said


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    offset = free_offset(5)
    port = Ports.plan(5, offset).storage[3]
    with socket.create_server(("127.0.0.1", port)):
        said = refused("--data-dir", str(tmp_path / "data"), "--port-offset", str(offset))
    assert f"port {port} (storage-4) already in use" in said
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_directory_that_cannot_be_written_is_refused() -> None:
    assert "cannot use the data directory /proc/vstack" in refused("--data-dir", "/proc/vstack")


def test_a_database_that_is_away_is_refused(tmp_path: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:{Ports.plan(1, free_offset(1)).metadata}/none"
    said = refused("--data-dir", str(tmp_path), "--database-url", url, "--port-offset", str(free_offset(5)))
    assert "cannot connect to the given database" in said


def test_a_file_system_without_direct_io_is_refused(tmp_path: Path) -> None:
    mount = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
    prefix = (*mount, "sh", "-c", f'mount -t ramfs none {tmp_path} && exec "$0" "$@"')
    said = refused("--data-dir", str(tmp_path), "--nodes", "1", "--port-offset", str(free_offset(1)), prefix=prefix)
    assert "O_DIRECT" in said


def test_a_signal_ends_all_of_it_and_the_next_start_serves_what_was_stored(tmp_path: Path, video: Path) -> None:
    directory = tmp_path / "data"
    with dev_cluster(directory, nodes=3) as cluster:
        video_id = cluster.upload(video, "Kept")
        first = cluster.play(video_id, tmp_path / "first.mp4")
        assert len(cluster.processes()) > 8
        assert cluster.stop(signal.SIGINT) == 0
        assert cluster.processes() == []
        assert list((directory / "run").glob("*.pid")) == []
    with dev_cluster(directory, nodes=3) as cluster:
        assert cluster.play(video_id, tmp_path / "second.mp4") == first
        # A supervisor that cannot clean up any more leaves nothing either.
        assert cluster.stop(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: cluster.processes() == [], "the end of the orphans")
    with dev_cluster(directory, nodes=3) as cluster:
        assert cluster.play(video_id, tmp_path / "third.mp4") == first
    shutil.rmtree(directory)
