"""Starts every process of a local cluster, waits until all of it is healthy, watches it, and stops it without a rest.

Nothing is restarted by itself: whoever runs a local cluster wants to see what a failure does, and a service that came
back on its own would hide it. A process that ends is reported; `Cluster.revive` (SIGUSR1 to `vstack dev up`) starts
everything that is down again.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from vstack.dev import layout, programs
from vstack.dev.ports import Ports, url
from vstack.dev.postgres import Postgres, check_reachable
from vstack.dev.process import Process, describe_exit
from vstack.errors import SettingsError, VStackError
from vstack.rpc.http import JsonCaller, new_session
from vstack.rpc.metadata import MetadataClient
from vstack.rpc.storage import StorageClient

READY_TIMEOUT_S: Final = 120.0
PROBE_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.1

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `vstack dev up` takes. Without `database_url` the cluster runs its own PostgreSQL."""

    data_dir: Path
    nodes: int = 5
    port_offset: int = 0
    database_url: str | None = None


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The line that `vstack dev up` prints when everything is healthy."""

    ready: bool = True
    metadata: tuple[str, ...]
    storage: tuple[str, ...]
    uploader: str
    client: str


class Cluster:
    """The processes of one local cluster. Made by `running`."""

    def __init__(self, ports: Ports, services: dict[str, Process], postgres: Postgres | None, report: Report) -> None:
        self._ports = ports
        self._services = services
        self._postgres = postgres
        self._report = report
        self._reporting = False
        self._watchers: dict[str, asyncio.Task[None]] = {}

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            metadata=(url(self._ports.metadata),),
            storage=tuple(url(port) for port in self._ports.storage),
            uploader=url(self._ports.uploader),
            client=url(self._ports.client),
        )

    def service_at(self, base_url: str) -> str:
        """The name of the service behind a URL of `endpoints`."""
        return next(name for name, port in self._ports.named() if url(port) == base_url)

    async def start(self) -> None:
        """Start everything; returns when all of it is healthy. SettingsError, one line, where something is not."""
        if self._postgres is not None:
            await self._postgres.start()
            self._watch(self._postgres.process)
        async with new_session() as session:
            # The others register with the metadata service: starting it first spares them a retry.
            await self._start("metadata")
            await self._until_ready(lambda: self._metadata_missing(session))
            await asyncio.gather(*(self._start(name) for name in self._services if name != "metadata"))
            await self._until_ready(lambda: self._missing(session))
        self._reporting = True

    async def revive(self) -> None:
        """Start again whatever has ended; returns when it has been started, not when it is healthy."""
        if self._postgres is not None and not self._postgres.process.running:
            await self._postgres.start()
            self._watch(self._postgres.process)
        for name, process in self._services.items():
            if not process.running:
                self._report(f"starting {name} again")
                await self._start(name)

    async def kill(self, name: str) -> None:
        """SIGKILL one service, as a power cut of its machine would; returns when it is gone."""
        process = self._services[name]
        process.signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """Stop everything: the faces first, then storage and metadata, then the database. Leaves no process."""
        self._reporting = False
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await asyncio.gather(*(self._services[name].stop() for name in ("uploader", "client")))
        await asyncio.gather(*(process.stop() for process in self._services.values()))
        if self._postgres is not None:
            await self._postgres.process.stop()

    def _processes(self) -> list[Process]:
        return [*self._services.values(), *([self._postgres.process] if self._postgres is not None else [])]

    async def _start(self, name: str) -> None:
        process = self._services[name]
        await process.start()
        self._watch(process)

    def _watch(self, process: Process) -> None:
        self._watchers[process.name] = asyncio.create_task(self._report_end(process))

    async def _report_end(self, process: Process) -> None:
        pid = process.pid
        status = await process.wait()
        if self._reporting:
            self._report(f"{process.name} (process {pid}) {describe_exit(status)}")

    async def _until_ready(self, missing: Callable[[], Awaitable[str | None]]) -> None:
        """Wait until `missing` finds nothing more to wait for."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + READY_TIMEOUT_S
        while (what := await missing()) is not None:
            for process in self._processes():
                if process.ended:
                    await process.wait()
                    raise SettingsError(f"{process.name} did not start: {process.last_line.removeprefix('vstack: ')}")
            if loop.time() > deadline_s:
                raise SettingsError(f"{what} is not healthy after {READY_TIMEOUT_S:.0f} s; its log tells more")
            await asyncio.sleep(POLL_S)

    async def _missing(self, session: aiohttp.ClientSession) -> str | None:
        """The first service that is not healthy yet, None when all are."""
        storage = StorageClient(session)
        for number, node in enumerate(self.endpoints.storage, start=1):
            if not await _succeeds(storage.ping(node, timeout_s=PROBE_TIMEOUT_S)):
                return f"storage-{number}"
        for name, base in (("uploader", self.endpoints.uploader), ("client", self.endpoints.client)):
            if not await _answers(session, base):
                return name
        try:
            known = await MetadataClient(session, self.endpoints.metadata).all_nodes()
        except VStackError:
            return "metadata"
        healthy = {node.node_url for node in known.nodes if node.status == "healthy"}
        waiting = [self.service_at(node) for node in self.endpoints.storage if node not in healthy]
        return waiting[0] if waiting else None

    async def _metadata_missing(self, session: aiohttp.ClientSession) -> str | None:
        return None if await _answers(session, url(self._ports.metadata)) else "metadata"


@contextlib.asynccontextmanager
async def running(options: Options, report: Report) -> AsyncIterator[Cluster]:
    """A healthy cluster inside the block, nothing left of it afterwards.

    `report` gets one sentence whenever a process ends by itself. SettingsError, one line, where it cannot start.
    """
    directory = options.data_dir.resolve()
    ports = Ports.plan(options.nodes, options.port_offset)
    media = programs.media()
    with layout.locked(directory):
        ports.check_free()
        postgres = None
        if options.database_url is not None:
            database_url = options.database_url
            await check_reachable(database_url)
        else:
            postgres = Postgres(directory)
            database_url = postgres.url
        files = layout.write_configs(directory, ports, database_url, media)
        cluster = Cluster(
            ports,
            {name: _service(name, kind, file, directory) for name, (kind, file) in files.items()},
            postgres,
            report,
        )
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()


def _service(name: str, kind: str, config: Path, directory: Path) -> Process:
    return Process(name, [sys.executable, "-m", "vstack", kind, "--config", str(config)], directory)


async def _answers(session: aiohttp.ClientSession, base_url: str) -> bool:
    call = JsonCaller(session, [base_url]).call(
        "GET", "/health", dict[str, object], retry=False, timeout_s=PROBE_TIMEOUT_S
    )
    return await _succeeds(call)


async def _succeeds(call: Awaitable[object]) -> bool:
    try:
        await call
    except VStackError:
        return False
    return True
