"""The sample video of the local cluster: real, as long and large as asked, the same every time, whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.support import media
from vstack.dev import programs
from vstack.dev.sample import make_sample
from vstack.errors import SettingsError

pytestmark = pytest.mark.cluster


async def test_a_sample_is_what_was_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in paths:
        await make_sample(path, ffmpeg=programs.media().ffmpeg, seconds=4, mbps=3.0)
    assert media.codecs(paths[0]) == ["h264", "aac"]
    assert media.length_s(media.tracks(paths[0])) == pytest.approx(4.0, abs=0.1)
    assert len(paths[0].read_bytes()) == pytest.approx(4 * 3_000_000 / 8, rel=0.2)
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) == 1


async def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="made no video"):
        await make_sample(tmp_path / "a.mp4", ffmpeg="/bin/false")
    with pytest.raises(SettingsError, match="cannot run"):
        await make_sample(tmp_path / "a.mp4", ffmpeg="/nonexistent/ffmpeg")
    assert not any(os.scandir(tmp_path))
