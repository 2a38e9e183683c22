"""Who a data directory is: a small JSON file with a checksum, replaced atomically.

Invariants
- The incarnation grows, durably, at every open and before any other write.
- A directory is formatted only when it is empty, so an unmounted disk's mount point with anything in it, or a wrong
  path, is refused; where formatting is not allowed, an empty one is refused too.
- The node id belongs to the disk: another configured one is refused.
"""

import os
import re
import socket
from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec
from crc32c import crc32c

from vstack.errors import SettingsError
from vstack.storage.disk import Disk

IDENTITY_NAME: Final = "identity.json"
_VERSION: Final = 1
_HASH_KEY_BYTES: Final = 16
_NODE_ID_CHARS: Final = 64
_IGNORED: Final = re.compile(r"lost\+found|lock|.*\.new")
"""What a fresh file system, or a formatting that was cut off before the identity was written, leaves behind."""


class DiskIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """`superblocks` counts the files that were made, so that a missing one is noticed."""

    version: int
    node_id: str
    disk_uuid: str
    incarnation: int
    hash_key: str
    superblocks: int = 0


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    identity: msgspec.Raw
    crc32c: int


def load_or_format(
    disk: Disk, *, node_id: str | None, may_format: bool, random_bytes: Callable[[int], bytes] = os.urandom
) -> DiskIdentity:
    """The identity for this open, its incarnation raised and durable. SettingsError where the directory is refused."""
    stored = _load(disk)
    if stored is None:
        stored = _fresh(disk, node_id, may_format, random_bytes)
    elif node_id is not None and node_id != stored.node_id:
        raise SettingsError(
            f"the data directory belongs to node {stored.node_id}, not {node_id}: "
            "a disk keeps its node id; use an empty directory for a new node"
        )
    raised = msgspec.structs.replace(stored, incarnation=stored.incarnation + 1)
    store(disk, raised)
    return raised


def store(disk: Disk, identity: DiskIdentity) -> None:
    """Durable when it returns."""
    encoded = msgspec.json.encode(identity)
    disk.replace(
        IDENTITY_NAME, msgspec.json.encode(_Sealed(identity=msgspec.Raw(encoded), crc32c=crc32c(encoded))) + b"\n"
    )


def _load(disk: Disk) -> DiskIdentity | None:
    data = disk.read(IDENTITY_NAME)
    if data is None:
        return None
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
        identity = msgspec.json.decode(sealed.identity, type=DiskIdentity)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{IDENTITY_NAME} in the data directory is damaged: {error}") from error
    if crc32c(bytes(sealed.identity)) != sealed.crc32c:
        raise SettingsError(f"{IDENTITY_NAME} in the data directory is damaged: its checksum is wrong")
    if identity.version > _VERSION:
        raise SettingsError(f"the data directory was written by a newer V-Stack (identity version {identity.version})")
    return identity


def _fresh(disk: Disk, node_id: str | None, may_format: bool, random_bytes: Callable[[int], bytes]) -> DiskIdentity:
    strangers = [name for name in disk.names() if not _IGNORED.fullmatch(name)]
    if strangers:
        raise SettingsError(
            f"the data directory has no {IDENTITY_NAME} but holds {strangers[0]!r}: "
            "only an empty directory is formatted"
        )
    if not may_format:
        raise SettingsError("the data directory is empty: is its disk mounted? (formatting was not asked for)")
    disk_uuid = UUID(bytes=random_bytes(16), version=4)
    return DiskIdentity(
        version=_VERSION,
        node_id=node_id or _default_node_id(disk_uuid),
        disk_uuid=str(disk_uuid),
        incarnation=0,
        hash_key=random_bytes(_HASH_KEY_BYTES).hex(),
    )


def _default_node_id(disk_uuid: UUID) -> str:
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())
    suffix = f"-{disk_uuid.hex[:8]}"
    return host[: _NODE_ID_CHARS - len(suffix)] + suffix
