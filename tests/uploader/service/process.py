"""An uploader in a process of its own, which can be ended in every way and started again."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from signal import Signals
from typing import Any

import aiohttp
import msgspec

from tests.uploader.service.cluster import FakeCluster
from tests.uploader.service.running import Service, settings_for
from vstack.dev.layout import toml
from vstack.uploader.sessions import Session

DEADLINE_S = 30


class UploaderProcess(Service):
    """`vstack uploader` on a port that stays its own."""

    _process: asyncio.subprocess.Process
    _config: Path

    async def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "-m", "vstack", "uploader", "--config", str(self._config)]
        with (self.data_dir.parent / "uploader.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        async with asyncio.timeout(DEADLINE_S):
            while not await self._answers():
                assert self._process.returncode is None, self.log
                await asyncio.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.wait()

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def stored(self, session_id: str) -> Session:
        """A session as it stands on the disk."""
        return msgspec.json.decode((self.data_dir / "sessions" / f"{session_id}.json").read_bytes(), type=Session)

    @property
    def log(self) -> str:
        return (self.data_dir.parent / "uploader.log").read_text()

    async def _answers(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return (await self.get("/health")).status == 200
        return False


@contextlib.asynccontextmanager
async def uploader_process(directory: Path, cluster: FakeCluster, **changes: Any) -> AsyncIterator[UploaderProcess]:
    """A started uploader of the cluster; it is gone after the block."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    settings = settings_for(directory, cluster.metadata.url, port=port, **changes)
    uploader = UploaderProcess(f"http://127.0.0.1:{port}", port, cluster.session, Path(settings.data_dir))
    uploader._config = directory / "uploader.toml"
    fields = msgspec.to_builtins(settings)
    uploader._config.write_text(toml({name: value for name, value in fields.items() if value is not None}))
    await uploader.start()
    try:
        yield uploader
    finally:
        await uploader.close()
