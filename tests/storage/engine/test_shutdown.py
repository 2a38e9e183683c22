"""The file system is shut down at once, without its journal: the nearest to a power cut that a running kernel offers.

Needs root, a loop device and ext4. A direct write into fallocated space that was not flushed reads back as zeros
afterwards, so an acknowledgement before fdatasync fails here.
"""

import contextlib
import fcntl
import logging
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.engine import victim
from tests.storage.engine.test_kill import Ledger, check, live_and_die

CUTS = 20
IMAGE_BYTES = 640 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2

log = logging.getLogger(__name__)


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Path, Path]:
    """(image of a file system, mount point)."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image, at = tmp_path / "image", tmp_path / "mounted"
    at.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    try:
        with mounted(image, at):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot mount a loop device: {error.stderr.decode().strip()}")
    return image, at


def shut_down(at: Path) -> None:
    directory = os.open(at, os.O_RDONLY)
    fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(directory)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
async def test_a_file_system_that_goes_away(disk: tuple[Path, Path]) -> None:
    image, at = disk
    seed = random.randrange(1 << 32)
    log.warning("seed %d", seed)
    rng = random.Random(seed)
    ledger = Ledger()
    acknowledged = 0
    for cut in range(CUTS):
        with mounted(image, at):
            said = live_and_die(
                at / "data", rng.randrange(1 << 32), cut * 100_000, rng.uniform(0.0, 0.2), last=lambda: shut_down(at)
            )
            acknowledged += ledger.read(said)
        with mounted(image, at):
            engine = await victim.open_victim(at / "data")
            try:
                await check(engine, ledger)
            finally:
                await engine.close()
    log.warning("%d cuts, %d acknowledgements", CUTS, acknowledged)
    assert acknowledged > CUTS
