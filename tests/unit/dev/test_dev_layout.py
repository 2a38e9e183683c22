"""The directory of a local cluster: one owner, private secrets, configurations that the services accept."""

import os
import shutil
import stat
import tomllib
from pathlib import Path

import pytest

from vstack import settings
from vstack.dev import layout
from vstack.dev.ports import Ports
from vstack.dev.programs import Media
from vstack.errors import SettingsError
from vstack.units import GIB

MEDIA = Media("/usr/bin/ffmpeg", "/usr/bin/ffprobe")


def test_every_service_accepts_its_file(tmp_path: Path) -> None:
    with layout.locked(tmp_path):
        files = layout.write_configs(tmp_path, Ports.plan(3, 10), "postgresql://vstack:secret@/vstack", MEDIA)
    assert list(files) == ["metadata", "storage-1", "storage-2", "storage-3", "uploader", "client"]
    for kind, path in files.values():
        assert settings.kind_of(path) == kind
        settings.load(path, settings.KINDS[kind])
    metadata = settings.load(files["metadata"][1], settings.MetadataSettings)
    nodes = [settings.load(files[f"storage-{n}"][1], settings.StorageSettings) for n in (1, 2, 3)]
    assert {settings.cluster_key(node) for node in nodes} == {settings.cluster_key(metadata)}
    assert len({node.data_dir for node in nodes}) == 3
    assert len({node.host_id for node in nodes}) == 3
    assert [node.public_url for node in nodes] == [f"http://127.0.0.1:{port}" for port in (8091, 8092, 8093)]
    assert {url for node in nodes for url in node.metadata_urls} == {"http://127.0.0.1:8090"}


def test_nodes_share_the_disk_and_keep_what_they_have(tmp_path: Path) -> None:
    kept = 3 * GIB
    (tmp_path / "storage-1").mkdir()
    with (tmp_path / "storage-1" / "sb-0").open("wb") as file:
        file.truncate(kept)
    with layout.locked(tmp_path):
        files = layout.write_configs(tmp_path, Ports.plan(2, 0), "postgresql://u:p@/v", MEDIA)
    first, second = (
        settings.load(files[name][1], settings.StorageSettings).capacity_bytes for name in ("storage-1", "storage-2")
    )
    free = shutil.disk_usage(tmp_path).free
    assert second <= max(layout.MIN_CAPACITY_BYTES, free)
    assert abs(first - second - kept) < GIB, "others write to this disk meanwhile"


def test_secrets_survive_and_are_private(tmp_path: Path) -> None:
    with layout.locked(tmp_path):
        for _ in range(2):
            layout.write_configs(tmp_path, Ports.plan(1, 0), "postgresql://u:p@/v", MEDIA)
        first = (tmp_path / "cluster.key").read_text()
        layout.write_configs(tmp_path, Ports.plan(1, 0), "postgresql://u:p@/v", MEDIA)
    assert (tmp_path / "cluster.key").read_text() == first
    assert len(first) == 64
    for path in (tmp_path / "cluster.key", *(tmp_path / "config").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("value", ['quote " and \\', "tab\tnewline\n", "ümläut 😀", "", "a'b", "#no comment"])
def test_toml_says_what_was_meant(value: str) -> None:
    text = layout.toml({"text": value, "number": 5, "list": (value, "x")})
    assert tomllib.loads(text) == {"text": value, "number": 5, "list": [value, "x"]}


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with (
        layout.locked(tmp_path),
        pytest.raises(SettingsError, match=f"in use by the local cluster of process {os.getpid()}$"),
        layout.locked(tmp_path),
    ):
        pytest.fail("it must not be had twice")
    with layout.locked(tmp_path):
        pass


def test_a_path_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="cannot use the data directory"), layout.locked(path):
            pytest.fail("it must not be had")
