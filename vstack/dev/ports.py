"""Which loopback ports a local cluster uses, and whether they are free."""

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vstack.errors import SettingsError

HOST: Final = "127.0.0.1"
METADATA_PORT: Final = 8080
UPLOADER_PORT: Final = 8084
CLIENT_PORT: Final = 8888
FIRST_STORAGE_PORTS: Final = (8081, 8082, 8083, 8085, 8086)
MAX_NODES: Final = 64
MAX_PORT: Final = 65535


def url(port: int) -> str:
    """The base URL of a service of the local cluster."""
    return f"http://{HOST}:{port}"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one cluster. `storage` has one per node, in the order of the nodes' names."""

    metadata: int
    storage: tuple[int, ...]
    uploader: int
    client: int

    @classmethod
    def plan(cls, nodes: int, offset: int) -> "Ports":
        """The default ports, each plus `offset`; nodes beyond the fifth continue at 8087. Or SettingsError."""
        if not 1 <= nodes <= MAX_NODES:
            raise SettingsError(f"a local cluster has 1 to {MAX_NODES} storage nodes")
        more = range(FIRST_STORAGE_PORTS[-1] + 1, FIRST_STORAGE_PORTS[-1] + 1 + nodes)
        storage = (*FIRST_STORAGE_PORTS, *more)[:nodes]
        ports = cls(
            METADATA_PORT + offset,
            tuple(port + offset for port in storage),
            UPLOADER_PORT + offset,
            CLIENT_PORT + offset,
        )
        for name, port in ports.named():
            if not 1 <= port <= MAX_PORT:
                raise SettingsError(f"port offset {offset} puts {name} on port {port}, which does not exist")
        return ports

    def named(self) -> Iterator[tuple[str, int]]:
        """(service name, port) of every service."""
        yield "metadata", self.metadata
        for number, port in enumerate(self.storage, start=1):
            yield f"storage-{number}", port
        yield "uploader", self.uploader
        yield "client", self.client

    def check_free(self) -> None:
        """SettingsError naming every port that something else listens on."""
        taken = [f"{port} ({name})" for name, port in self.named() if _is_taken(port)]
        if taken:
            what = "port" if len(taken) == 1 else "ports"
            raise SettingsError(f"{what} {', '.join(taken)} already in use; --port-offset moves all of them")


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise SettingsError(f"cannot use port {port}: {error.strerror}") from error
    return False
