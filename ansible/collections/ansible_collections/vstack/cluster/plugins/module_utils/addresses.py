"""How an address of the inventory is written in URLs. Pure: no Ansible in here."""

from __future__ import annotations

from collections.abc import Iterable

POSTGRES_PORT = 5432
DATABASE = "vstack"
DATABASE_USER = "vstack"


def bracketed(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def http_url(address: str, port: int) -> str:
    return f"http://{bracketed(address)}:{port}"


def libpq_url(addresses: Iterable[str]) -> str:
    """The database on whichever of these hosts takes writes. Without a password: that is in a pgpass file."""
    hosts = ",".join(f"{bracketed(address)}:{POSTGRES_PORT}" for address in addresses)
    return f"postgresql://{DATABASE_USER}@{hosts}/{DATABASE}?target_session_attrs=read-write"
