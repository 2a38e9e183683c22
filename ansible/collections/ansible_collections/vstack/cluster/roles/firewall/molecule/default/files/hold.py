"""Connect to a port, and use that connection again once FILE exists. Usage: hold.py ADDRESS PORT FILE."""

# ruff: noqa: INP001 - a program of its own, copied to a host

import socket
import sys
import time
from pathlib import Path

DEADLINE_S = 120
PAUSE_S = 0.1


def exchange(connection: socket.socket, line: bytes) -> None:
    """Send a line; it must come back."""
    connection.sendall(line)
    if connection.recv(64) != line:
        sys.exit("The other side is gone.")


def main(address: str, port: int, file: Path) -> None:
    with socket.create_connection((address, port), timeout=DEADLINE_S) as connection:
        exchange(connection, b"before\n")
        file.with_suffix(".held").touch()
        deadline = time.monotonic() + DEADLINE_S
        while not file.exists():
            if time.monotonic() > deadline:
                sys.exit("Nobody asked.")
            time.sleep(PAUSE_S)
        exchange(connection, b"after\n")


main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
