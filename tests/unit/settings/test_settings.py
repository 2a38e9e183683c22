"""Configuration files: whole and right, or one line that says what is wrong."""

from pathlib import Path

import pytest

from vstack import settings
from vstack.errors import SettingsError

METADATA = 'database_url = "postgresql://u:secret@db/vstack"\ncluster_key_file = "cluster.key"\n'
STORAGE = 'data_dir = "/srv/vstack"\ncluster_key_file = "k"\nmetadata_urls = ["http://m:8080"]\n'


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "service.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_defaults_are_the_documented_ports(tmp_path: Path) -> None:
    assert settings.load(written(tmp_path, METADATA), settings.MetadataSettings).port == 8080
    assert settings.load(written(tmp_path, STORAGE), settings.StorageSettings).port == 8081
    uploader = 'data_dir = "d"\nmetadata_urls = ["http://m:8080"]\n'
    assert settings.load(written(tmp_path, uploader), settings.UploaderSettings).port == 8084
    assert settings.load(written(tmp_path, ""), settings.ClientSettings).port == 8888


@pytest.mark.parametrize("kind", settings.KINDS)
def test_the_file_names_its_kind(tmp_path: Path, kind: str) -> None:
    assert settings.kind_of(written(tmp_path, f'service = "{kind}"')) == kind
    assert settings.kind_of(written(tmp_path, ""), default=kind) == kind


@pytest.mark.parametrize("text", ["", 'service = "storag"', "service = 5", "service = []"])
def test_a_file_of_no_kind_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="`service` must be one of metadata, storage, uploader, client"):
        settings.kind_of(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 8081", "unknown field `prot`"),
        ("port = 0", ">= 1 - at `$.port`"),
        ("port = 65536", "<= 65535 - at `$.port`"),
        ('port = "8081"', "Expected `int`, got `str` - at `$.port`"),
        ("superblock_bytes = 1000", "at `$.superblock_bytes`"),
        ("superblock_bytes = 8388609", "at `$.superblock_bytes`"),
        ('log_level = "loud"', "at `$.log_level`"),
        ('node_id = "a b"', "at `$.node_id`"),
        ('host = ""', "at `$.host`"),
        ('public_url = "storage-1:8081"', "at `$.public_url`"),
        ("io_threads = 0", "at `$.io_threads`"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load(written(tmp_path, STORAGE + text), settings.StorageSettings)
    assert sentence in str(caught.value)
    assert "service.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("urls", ["[]", '["m:8080"]', '["http://m:8080/path"]', '"http://m:8080"'])
def test_metadata_urls_are_base_urls(tmp_path: Path, urls: str) -> None:
    with pytest.raises(SettingsError, match="metadata_urls"):
        settings.load(written(tmp_path, f"metadata_urls = {urls}"), settings.ClientSettings)


@pytest.mark.parametrize("text", [b"port = ", b"\xff", b"port = 1\nport = 2"])
def test_what_is_not_toml_is_one_line(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(SettingsError, match="not valid TOML") as caught:
        settings.load(written(tmp_path, text), settings.ClientSettings)
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        settings.kind_of(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="Is a directory"):
        settings.load(tmp_path, settings.ClientSettings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@db/vstack", "postgresql://u:***@db/vstack"),
        ("postgresql://u:sec@ret@db:5432/vstack?x=1", "postgresql://u:***@db:5432/vstack?x=1"),
        ("postgresql://u@db/vstack", "postgresql://u@db/vstack"),
        ("postgresql:///vstack?host=/run&password=secret&x=1", "postgresql:///vstack?host=/run&password=***&x=1"),
        ("host=db user=u password=secret dbname=v", "host=db user=u password=*** dbname=v"),
        (r"host=db password = 'sec ret\'s' dbname=v", "host=db password = *** dbname=v"),
        ("host=db PASSWORD=secret", "host=db PASSWORD=***"),
        ("postgresql://u:secret@a,b/v?sslpassword=secret", "postgresql://u:***@a,b/v?sslpassword=***"),
    ],
)
def test_printed_settings_have_no_password(tmp_path: Path, url: str, shown: str) -> None:
    loaded = settings.MetadataSettings(database_url=url, cluster_key_file=str(tmp_path / "key"))
    assert settings.redacted(loaded)["database_url"] == shown


def storage(key_file: Path | str) -> settings.StorageSettings:
    return settings.StorageSettings(data_dir="d", cluster_key_file=str(key_file), metadata_urls=("http://m:8080",))


def test_the_cluster_key_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    assert settings.cluster_key(storage(tmp_path / "key")) == b"0123456789abcdef0123456789abcdef"


def test_a_relative_key_is_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cluster.key").write_text("from the credentials directory")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.cluster_key(storage("cluster.key")) == b"from the credentials directory"
    (tmp_path / "other").write_text("an absolute path stays one")
    assert settings.cluster_key(storage(tmp_path / "other")) == b"an absolute path stays one"


def test_a_missing_or_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the cluster key"):
        settings.cluster_key(storage(tmp_path / "none"))
    (tmp_path / "short").write_text("fifteen letters\n")
    with pytest.raises(SettingsError, match="fewer than 16 bytes") as caught:
        settings.cluster_key(storage(tmp_path / "short"))
    assert "fifteen" not in str(caught.value)
