"""Connect to each port; print as JSON the ports by what came of it.

That is: open, filtered (by a firewall), refused (nobody listens), timeout or another error.
Usage: probe.py SOURCE|any ADDRESS PORT ...
"""

# ruff: noqa: INP001 - a program of its own, copied to a host

import errno
import json
import socket
import sys

DEADLINE_S = 10
NAMES = {errno.EHOSTUNREACH: "filtered", errno.EACCES: "filtered", errno.ECONNREFUSED: "refused"}


def probe(source: str, address: str, port: int) -> str:
    origin = None if source == "any" else (source, 0)
    try:
        socket.create_connection((address, port), timeout=DEADLINE_S, source_address=origin).close()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return NAMES.get(error.errno or 0, str(error))
    return "open"


def main(source: str, address: str, ports: list[str]) -> None:
    found: dict[str, list[int]] = {}
    for port in sorted(map(int, ports)):
        found.setdefault(probe(source, address, port), []).append(port)
    json.dump(found, sys.stdout)


main(sys.argv[1], sys.argv[2], sys.argv[3:])
