"""Every operation of every service's own /openapi.json, called with inputs that fit it and inputs that do not.

Whatever is sent: never a 500, and only statuses, media types and bodies that the document announces.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.dev_cluster import DevCluster, dev_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("contract")]

Operation = APIOperation[Any, Any, Any, Any]

EXAMPLES = 20
CALL_TIMEOUT_S = 30
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
SERVICES = ("metadata", "storage", "uploader", "client")


@pytest.fixture(scope="module")
def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """A cluster of its own: these tests register nodes that do not exist."""
    with dev_cluster(tmp_path_factory.mktemp("contract"), nodes=1) as cluster:
        yield cluster


def base_url(cluster: DevCluster, service: str) -> str:
    endpoints = cluster.endpoints
    named = {"uploader": endpoints.uploader, "client": endpoints.client}
    return named.get(service) or {"metadata": endpoints.metadata, "storage": endpoints.storage}[service][0]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_keeps_to_the_document(small_cluster: DevCluster, service: str, mode: GenerationMode) -> None:
    url = base_url(small_cluster, service)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=CALL_TIMEOUT_S)
    schema.validate()
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert operations
    with requests.Session() as session:
        for operation in operations:
            if mode is GenerationMode.POSITIVE or _takes_anything(operation):
                _try(operation, mode, url, session)
    assert requests.get(f"{url}/health", timeout=CALL_TIMEOUT_S).json()["status"] == "healthy"


def _takes_anything(operation: Operation) -> bool:
    return bool(operation.path_parameters or operation.query or operation.body)


def _try(operation: Operation, mode: GenerationMode, url: str, session: requests.Session) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def attempt(case: Case[Any]) -> None:
        response = case.call(base_url=url, session=session, timeout=CALL_TIMEOUT_S)
        assert response.status_code != 500, f"{case.as_curl_command()}\n{response.text}"
        case.validate_response(response, checks=CHECKS)

    attempt()
