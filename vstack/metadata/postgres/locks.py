"""The Postgres advisory locks of the metadata service: one number for each thing that only one instance does at a time.

They end with their connection, so the work of an instance that dies passes to another.
"""

from enum import IntEnum


class Lock(IntEnum):
    """Keys of `pg_advisory_lock`; the high bytes spell VSTK, so that other users of the database stay clear."""

    MIGRATION = 0x5653544B_00000001
    GENERATION = 0x5653544B_00000002
    REGISTRATION = 0x5653544B_00000003
    PROBE = 0x5653544B_00000004
    REAPER = 0x5653544B_00000005
    REBUILD = 0x5653544B_00000006
