"""Every operation of every service's own /openapi.json, called with inputs that fit it and inputs that do not.

Whatever is sent: never a 500, and only statuses, media types and bodies that the document announces.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
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
from vstack.dev import programs
from vstack.dev.sample import make_sample

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("contract")]

Operation = APIOperation[Any, Any, Any, Any]

EXAMPLES = 20
CALL_TIMEOUT_S = 30
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
SERVICES = ("metadata", "storage", "uploader", "client")


@dataclass(frozen=True)
class Target:
    """A running cluster, and path parameters of things that are in it."""

    cluster: DevCluster
    existing: dict[str, str]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A cluster of its own: these tests register nodes that do not exist. The video is stored before they do."""
    clip = tmp_path_factory.mktemp("clip") / "clip.mp4"
    asyncio.run(make_sample(clip, ffmpeg=programs.media().ffmpeg, seconds=3, mbps=1))
    with dev_cluster(tmp_path_factory.mktemp("contract"), nodes=1) as cluster:
        video_id = cluster.upload(clip, "Of the contract")
        yield Target(cluster, {"video_id": video_id, "chunk_id": f"{video_id}-chunk-000"})


def base_url(cluster: DevCluster, service: str) -> str:
    endpoints = cluster.endpoints
    named = {"uploader": endpoints.uploader, "client": endpoints.client}
    return named.get(service) or {"metadata": endpoints.metadata, "storage": endpoints.storage}[service][0]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_keeps_to_the_document(target: Target, service: str, mode: GenerationMode) -> None:
    url = base_url(target.cluster, service)
    with requests.Session() as session:
        for operation in _operations(url):
            if mode is GenerationMode.POSITIVE or _takes_anything(operation):
                _try(operation, mode, url, session)
    assert requests.get(f"{url}/health", timeout=CALL_TIMEOUT_S).json()["status"] == "healthy"


@pytest.mark.parametrize("service", ["metadata", "storage"])
def test_every_operation_on_what_exists_keeps_to_the_document(target: Target, service: str) -> None:
    url = base_url(target.cluster, service)
    operations = sorted(_operations(url), key=lambda operation: operation.method.upper() == "DELETE")
    with requests.Session() as session:
        for operation in operations:
            names = {parameter.name for parameter in operation.path_parameters}
            # A node id is not among the existing: a heartbeat in its name may rightly fence the real node off.
            if names and names <= set(target.existing):
                _try(operation, GenerationMode.POSITIVE, url, session, {name: target.existing[name] for name in names})


@pytest.mark.parametrize("node_url", ["http://[::::]", "http://[1.2]", "http://a]b", "http://a..b", "http://a:99999"])
def test_a_node_url_that_is_none_is_400(target: Target, node_url: str) -> None:
    registration = {"node_id": "never", "node_url": node_url}
    url = base_url(target.cluster, "metadata") + "/nodes/register"
    assert requests.post(url, json=registration, timeout=CALL_TIMEOUT_S).status_code == 400
    assert requests.post(url, params=registration, timeout=CALL_TIMEOUT_S).status_code == 400


def _operations(url: str) -> list[Operation]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=CALL_TIMEOUT_S)
    schema.validate()
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == sum(len(methods) for methods in schema.raw_schema["paths"].values())
    return operations


def _takes_anything(operation: Operation) -> bool:
    return bool(operation.path_parameters or operation.query or operation.body)


def _try(
    operation: Operation,
    mode: GenerationMode,
    url: str,
    session: requests.Session,
    path_parameters: dict[str, str] | None = None,
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode, path_parameters=path_parameters))
    def attempt(case: Case[Any]) -> None:
        response = case.call(base_url=url, session=session, timeout=CALL_TIMEOUT_S)
        assert response.status_code != 500, f"{case.as_curl_command()}\n{response.text}"
        case.validate_response(response, checks=CHECKS)

    attempt()
