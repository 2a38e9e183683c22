"""Settings of every service: one TOML file each, checked whole before anything starts.

Owns all defaults; deployment sets only what differs per site. Unknown keys are refused, so a typing error cannot hide.
Secrets are never in the file: `cluster_key_file` names a file (a systemd credential, or a 0600 file in the data
directory), and `redacted` is what may be printed.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from vstack.errors import SettingsError
from vstack.ids import BaseUrl
from vstack.units import GIB, MIB

MIN_CLUSTER_KEY_BYTES: Final = 16

# The password of a URL ends at the last @ of its authority; the one of a keyword string may be quoted.
_PASSWORD_IN_URL = re.compile(r"(://[^/?#\s:@]*:)[^/?#\s]*@")
_PASSWORD_KEYWORD = re.compile(r"((?:^|[\s?&])(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]*)", re.IGNORECASE)

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
MetadataUrls = Annotated[tuple[BaseUrl, ...], msgspec.Meta(min_length=1, max_length=16)]
NodeName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings types."""


class Common(Section, frozen=True, kw_only=True):
    """What every service has. `cors_origin` "" sends no CORS headers."""

    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Port
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    cors_origin: str = "*"


class MetadataSettings(Common, frozen=True, kw_only=True):
    """`proposer_id` tells metadata instances apart in ballots: each needs its own (0 draws a random one at start)."""

    database_url: str
    cluster_key_file: str
    port: Port = 8080
    proposer_id: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    database_pool_size: PositiveInt = 8
    popularity_threshold: PositiveInt = 1000
    upload_abandoned_after_s: PositiveFloat = 24 * 3600.0


class StorageSettings(Common, frozen=True, kw_only=True):
    """One storage process: one data directory on one disk.

    `node_id` defaults to one made from the disk's UUID. `public_url` is how others reach this node; `host_id` names the
    machine (failure domain), `zone` a larger one. `superblock_bytes` is fixed per file when it is created.
    """

    data_dir: str
    cluster_key_file: str
    metadata_urls: MetadataUrls
    port: Port = 8081
    node_id: NodeName | None = None
    public_url: BaseUrl | None = None
    host_id: str | None = None
    zone: str = ""
    superblock_bytes: Annotated[int, msgspec.Meta(ge=8 * MIB, le=4 * GIB, multiple_of=MIB)] = 1 * GIB
    capacity_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Most that superblocks may take together; 0 is the whole file system."""
    may_format: bool = True
    """Whether an empty data directory is made a new disk. False once the disk exists refuses the bare mount point of a
    disk that is not mounted."""
    io_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


class UploaderSettings(Common, frozen=True, kw_only=True):
    """`data_dir` holds received files while they are worked on, and the sessions. `max_jobs` bounds ffmpeg runs.

    `drain_s` is how long a stopping uploader waits for files that are being received; jobs go on after the restart.
    """

    data_dir: str
    metadata_urls: MetadataUrls
    port: Port = 8084
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"
    media_socket: str = ""
    """Where systemd starts media jobs (vstack-media.socket), which know their own programs; empty: as our children."""
    max_jobs: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    max_queued: Annotated[int, msgspec.Meta(ge=1, le=10000)] = 100
    max_upload_bytes: PositiveInt = 200 * GIB
    job_timeout_s: PositiveFloat = 6 * 3600.0
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0


class ClientSettings(Common, frozen=True, kw_only=True):
    """The smart client's HTTP server. `grafana_url` is where `GET /` leads."""

    metadata_urls: MetadataUrls = ("http://127.0.0.1:8080",)
    port: Port = 8888
    grafana_url: str | None = None


KINDS: Final[
    dict[str, type[MetadataSettings] | type[StorageSettings] | type[UploaderSettings] | type[ClientSettings]]
] = {
    "metadata": MetadataSettings,
    "storage": StorageSettings,
    "uploader": UploaderSettings,
    "client": ClientSettings,
}

S = TypeVar("S", bound=Common)


def load(path: Path, kind: type[S]) -> S:
    """The settings in TOML file `path`; SettingsError, one line, where they are not right."""
    data = _read(path)
    data.pop("service", None)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {error}") from error


def kind_of(path: Path, default: str | None = None) -> str:
    """The `service` key of a file: metadata, storage, uploader or client. A file without one is of kind `default`."""
    name = _read(path).get("service", default)
    if not isinstance(name, str) or name not in KINDS:
        raise SettingsError(f"{path}: `service` must be one of {', '.join(KINDS)}")
    return name


def cluster_key(settings: MetadataSettings | StorageSettings) -> bytes:
    """The cluster's shared secret. A relative name is looked up in $CREDENTIALS_DIRECTORY first (systemd)."""
    path = Path(settings.cluster_key_file)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not path.is_absolute():
        path = Path(credentials) / path
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"cannot read the cluster key {path}: {error.strerror}") from error
    if len(key) < MIN_CLUSTER_KEY_BYTES:
        raise SettingsError(f"the cluster key in {path} has fewer than {MIN_CLUSTER_KEY_BYTES} bytes")
    return key


def redacted(settings: Common) -> dict[str, object]:
    """The settings as plain data, with every password blanked."""
    data: dict[str, object] = msgspec.to_builtins(settings)
    return {name: without_passwords(value) if isinstance(value, str) else value for name, value in data.items()}


def without_passwords(text: str) -> str:
    """A URL or libpq connection string with its passwords replaced by ***."""
    return _PASSWORD_KEYWORD.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1***@", text))


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
