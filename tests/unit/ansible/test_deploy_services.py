"""What a host runs follows from its groups and disks, and the ports are those of the package's settings."""

import msgspec
import pytest

from tests.unit.ansible.collection import services
from vstack.settings import KINDS

DISKS = [{"name": "d1", "device": "/dev/disk/by-id/one"}, {"name": "d2", "device": "/dev/disk/by-id/two", "port": 9001}]


def test_services_stand_in_the_order_of_restarts() -> None:
    found, problems = services.services(["uploader", "all", "storage", "metadata"], "192.0.2.1", DISKS)
    assert not problems
    assert [service.as_dict() for service in found] == [
        {"group": "metadata", "unit": "vstack-metadata.service", "url": "http://192.0.2.1:8080"},
        {"group": "storage", "unit": "vstack-storage@d1.service", "url": "http://192.0.2.1:8081"},
        {"group": "storage", "unit": "vstack-storage@d2.service", "url": "http://192.0.2.1:9001"},
        {"group": "uploader", "unit": "vstack-uploader.service", "url": "http://192.0.2.1:8084"},
    ]


def test_disks_of_a_host_that_stores_nothing_are_not_looked_at() -> None:
    assert services.services(["monitoring"], "192.0.2.1", [{"name": "?"}]) == ([], [])


def test_mistakes_in_the_disks_are_named() -> None:
    found, problems = services.services(["storage"], "192.0.2.1", [{"name": "d1"}])
    assert found == []
    assert problems == ["disk d1 has no device: add one like `device: /dev/disk/by-id/...`"]


@pytest.mark.parametrize("group", services.PORTS)
def test_ports_are_the_defaults_of_the_package(group: str) -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(KINDS[group])}
    assert defaults["port"] == services.PORTS[group]
