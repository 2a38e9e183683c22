"""What site.yml does: blank hosts become a cluster that plays a video, and a second run finds nothing to do."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.site.conftest import NODES
from tests.lab.site.harness import Run, Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]


def test_blank_hosts_play_a_video(first_run: tuple[Site, Run], video: Path, tmp_path: Path) -> None:
    site, run = first_run
    print(f"\nsite.yml: {run.seconds:.0f} s")
    for name, seconds in sorted(run.phases.items(), key=lambda phase: -phase[1]):
        print(f"  {name:28} {seconds:6.1f} s")
    started_s = time.monotonic()
    site.until_healthy(NODES)
    site.play(site.upload(video, "first"), tmp_path / "first.mp4")
    print(f"  uploaded and played: {time.monotonic() - started_s:.1f} s")
    assert packets(tmp_path / "first.mp4") == packets(video)


def test_a_second_run_changes_nothing(site: Site) -> None:
    run = site.playbook("site")
    assert set(run.changed.values()) == {0}, run.output[-8000:]
    print(f"\nsecond run: {run.seconds:.0f} s, changed=0 on {len(run.changed)} hosts")


def test_check_mode_finds_nothing_to_do(site: Site) -> None:
    run = site.playbook("site", "--check", "--diff")
    assert set(run.changed.values()) == {0}, run.output[-8000:]


def packets(path: Path) -> str:
    """A hash over the packets of each stream."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0", "-c", "copy", "-f", "streamhash", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
