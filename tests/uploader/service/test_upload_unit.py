"""An uploader whose ffmpeg is run by a unit of its own: it knows no program, only a socket."""

import stat
from pathlib import Path

import pytest

from tests.support import media_jobs
from tests.support.clips import ClipStore
from tests.uploader.service.cluster import FakeCluster
from tests.uploader.service.running import good_form, running_service, settings_for
from vstack.dev import programs

pytestmark = pytest.mark.cluster


async def test_a_whole_upload(five_nodes: FakeCluster, tmp_path: Path) -> None:
    media = programs.media()
    clip = ClipStore(tmp_path, media.ffmpeg).path("mp4")
    with media_jobs.listening(media.ffmpeg, media.ffprobe) as path:
        settings = settings_for(
            tmp_path, five_nodes.metadata.url, ffmpeg="/not/here", ffprobe="/not/here", media_socket=path
        )
        async with running_service(settings) as uploader:
            accepted = await uploader.client.upload(clip, "A title")
            status = await uploader.client.wait(accepted.upload_session_id, poll_interval_s=0.02)
    assert status.status == "completed", status
    assert status.total_chunks == len(five_nodes.metadata.decrees)


async def test_the_group_may_read_what_is_received(five_nodes: FakeCluster, tmp_path: Path) -> None:
    """The unit's user opens the file that it is passed once more, with the rights of the spool's group."""
    missing = str(tmp_path / "media.sock")
    settings = settings_for(tmp_path, five_nodes.metadata.url, media_socket=missing)
    async with running_service(settings) as uploader:
        assert (await uploader.post(good_form())).status == 200
        (received,) = uploader.received
        assert stat.S_IMODE((uploader.data_dir / "incoming" / received).stat().st_mode) == 0o640
