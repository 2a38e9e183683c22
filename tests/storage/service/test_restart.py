"""What a node has answered is still true after it was stopped and started again on the same disk."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.storage.service.conftest import RunningNode, running, settings_for
from vstack.errors import SettingsError
from vstack.service.runner import serving
from vstack.storage.app import make_app
from vstack.wire import consensus

ROUND = 1 << 16
DATA = os.urandom(100_000)
SHA = hashlib.sha256(DATA).hexdigest()


async def propose(node: RunningNode, **changes: Any) -> tuple[int, str | None]:
    header = consensus.to_header(node.proposal(node.decree(DATA, SHA, **changes)))
    headers = {consensus.PROPOSAL_HEADER: header}
    async with node.request("PUT", "/chunk/v-chunk-000", data=DATA, headers=headers) as answer:
        return answer.status, answer.headers.get(consensus.RECEIPT_HEADER)


async def test_data_votes_promises_and_retirements_survive_a_restart(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(await make_app(settings), tmp_path) as node:
        config = {"generation": 7, "acceptors": [node.node_id, "b", "c"]}
        first = await propose(node)
        promise = {"epoch": 0, "config": config, "ballot": 5 * ROUND}
        await node.json("POST", "/acceptor/promised/prepare", json=promise)
        learned = {"chunk_id": "learned", "epoch": 1, "config": config, "value": "chosen"}
        retired = {"chunk_id": "retired", "epoch": 0, "config": config}
        await node.json("POST", "/acceptors/learn", json={"items": [learned, retired]})
        states = await node.json("GET", "/acceptors")
        await node.put("gone", b"deleted before the restart")
        async with node.request("DELETE", "/chunk/gone"):
            pass
        before = node.engine.identity
    async with running(await make_app(settings), tmp_path) as node:
        after = node.engine.identity
        assert (after.node_id, after.disk_uuid) == (before.node_id, before.disk_uuid)
        assert after.incarnation > before.incarnation
        assert await node.get("v-chunk-000") == DATA
        await node.json("GET", "/chunk/gone", status=404)

        def by_id(page: dict[str, Any]) -> list[dict[str, Any]]:
            return sorted(page["states"], key=lambda state: str(state["chunk_id"]))

        assert by_id(await node.json("GET", "/acceptors")) == by_id(states)
        assert await propose(node) == (200, first[1])
        _, refused = await propose(node, title="another value")
        assert refused is not None
        assert consensus.receipt_from_text(refused).value_digest == ""
        replies = {
            name: (await node.json("POST", f"/acceptor/{name}/prepare", json={**promise, "epoch": epoch}))["outcome"]
            for name, epoch in (("promised", 0), ("learned", 1), ("retired", 0))
        }
        assert replies == {"promised": "rejected", "learned": "learned", "retired": "retired"}


async def test_a_directory_serves_one_node_at_a_time(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(await make_app(settings), tmp_path) as node:
        await node.put("c-1", DATA)
        with pytest.raises(SettingsError, match="another process"):
            async with serving(await make_app(settings), "127.0.0.1", 0):
                pass
        assert await node.get("c-1") == DATA


async def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    async with running(await make_app(settings_for(tmp_path)), tmp_path):
        pass
    with pytest.raises(SettingsError):
        async with serving(await make_app(settings_for(tmp_path, node_id="node-b")), "127.0.0.1", 0):
            pass


async def test_the_bare_mount_point_of_a_known_disk_is_refused_and_left_without_data(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, may_format=False)
    mount_point = Path(settings.data_dir)
    mount_point.mkdir()
    with pytest.raises(SettingsError, match="is its disk mounted"):
        async with serving(await make_app(settings), "127.0.0.1", 0):
            pass
    assert [path.name for path in mount_point.iterdir() if path.stat().st_size] == []
