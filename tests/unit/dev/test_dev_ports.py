"""The ports of a local cluster are the documented ones, moved together, and checked before anything starts."""

import socket

import pytest

from vstack.dev.ports import Ports
from vstack.errors import SettingsError


def test_the_documented_ports() -> None:
    ports = Ports.plan(5, 0)
    assert (ports.metadata, ports.storage, ports.uploader, ports.client) == (
        8080,
        (8081, 8082, 8083, 8085, 8086),
        8084,
        8888,
    )


def test_an_offset_moves_all_and_more_nodes_continue_without_a_clash() -> None:
    ports = Ports.plan(8, 1000)
    assert ports.storage == (9081, 9082, 9083, 9085, 9086, 9087, 9088, 9089)
    assert (ports.metadata, ports.uploader, ports.client) == (9080, 9084, 9888)
    largest = [port for _, port in Ports.plan(64, 0).named()]
    assert len(set(largest)) == len(largest) == 67


def test_fewer_nodes_take_the_first_ports() -> None:
    assert Ports.plan(3, 0).storage == (8081, 8082, 8083)


def test_names_are_in_order() -> None:
    assert [name for name, _ in Ports.plan(2, 0).named()] == [
        "metadata",
        "storage-1",
        "storage-2",
        "uploader",
        "client",
    ]


@pytest.mark.parametrize("nodes", [0, -1, 65])
def test_an_impossible_number_of_nodes(nodes: int) -> None:
    with pytest.raises(SettingsError, match="1 to 64 storage nodes"):
        Ports.plan(nodes, 0)


@pytest.mark.parametrize("offset", [57_000, -8081, 10**9])
def test_an_impossible_offset(offset: int) -> None:
    with pytest.raises(SettingsError, match="port offset"):
        Ports.plan(5, offset)


def test_every_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first, second = one.getsockname()[1], two.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        with pytest.raises(SettingsError) as caught:
            Ports(metadata=first, storage=(free,), uploader=second, client=free).check_free()
        assert str(caught.value).startswith(f"ports {first} (metadata), {second} (uploader) already in use")
        Ports(metadata=free, storage=(free,), uploader=free, client=free).check_free()


def test_a_port_that_was_just_given_up_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # the server's side waits in TIME_WAIT from here on
    Ports(metadata=port, storage=(port,), uploader=port, client=port).check_free()
