"""Limits and sizes that several rooms of the house share.

Owns the numbers of the public contract (chunk size, quorum sizes, timeouts that two services must agree on). A limit
that only one module knows lives in that module. Units stand last in every name.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

MAX_CHUNK_BYTES: Final = 2 * MIB
"""Exactly 2,097,152: a PUT of one byte more is 413."""

MAX_CHUNK_DURATION_S: Final = 10.0

REPLICATION_FACTOR: Final = 3
REPLICATION_WRITE_QUORUM: Final = 2
"""Durable copies that must exist before a replicated chunk is committed (degraded, and queued for repair)."""

DATA_SHARDS: Final = 3
PARITY_SHARDS: Final = 2
TOTAL_SHARDS: Final = DATA_SHARDS + PARITY_SHARDS
ERASURE_WRITE_QUORUM: Final = 4

HEARTBEAT_INTERVAL_S: Final = 3.0
HEARTBEAT_LATE_S: Final = 10.0
HEARTBEAT_DOWN_S: Final = 30.0

DISK_WARNING_PERCENT: Final = 85.0
DISK_CRITICAL_PERCENT: Final = 95.0

MAX_TITLE_CHARS: Final = 200
MAX_JSON_BODY_BYTES: Final = 1 * MIB
