"""Brings the schema up to this release. Safe to run from several instances at once.

Rules for migrations: numbered files, never edited once released; each runs in one transaction; they only expand (the
release before keeps working on the newer schema), and what nobody uses any more goes a release later. A database that
is ahead of this release is therefore fine.
"""

from collections.abc import Sequence
from typing import Final

import psycopg
import structlog

from vstack.metadata.postgres import statements
from vstack.metadata.postgres.locks import Lock

LOCK_TIMEOUT_MS: Final = 60_000

_SQL = statements.load("migrate")

log = structlog.get_logger()


async def migrate(
    connection: psycopg.AsyncConnection, migrations: Sequence[tuple[int, str, bytes]] | None = None
) -> list[int]:
    """Apply what is missing and return its versions. `connection` is in autocommit mode."""
    await connection.execute(_SQL["set_lock_timeout"], {"timeout_ms": str(LOCK_TIMEOUT_MS)})
    await connection.execute(_SQL["lock"], {"key": Lock.MIGRATION})
    try:
        await connection.execute(_SQL["create_ledger"])
        rows = await (await connection.execute(_SQL["applied"])).fetchall()
        applied = {row[0] for row in rows}
        done = []
        for version, name, script in statements.migrations() if migrations is None else migrations:
            if version in applied:
                continue
            async with connection.transaction():
                await connection.execute(script)
                await connection.execute(_SQL["record"], {"version": version, "name": name})
            log.info("migrated", version=version, name=name)
            done.append(version)
        return done
    finally:
        if not connection.broken:
            await connection.execute(_SQL["unlock"], {"key": Lock.MIGRATION})
