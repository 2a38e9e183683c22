#!/usr/bin/env python3
"""One storage process against one nginx worker, each alone on the same core, on 2 MiB objects.

V-Stack verifies every byte that it serves and syncs every byte that it stores before it answers; nginx (`directio 4k;
aio threads; output_buffers 2 1m;`, and its dav module for PUT) does neither. Both keep their objects on one file
system; the load generator has a core of its own. Rounds are interleaved, and every figure is the median of the ratios
of single rounds. Ends with status 1 where a target is missed.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench_lib import http_load
from bench_lib.peers import Peer, nginx, pinned, vstack

OBJECT_BYTES: Final = 2 * 1024 * 1024
OBJECTS: Final = 32
GET_CONNECTIONS: Final = (1, 8, 32)
PUT_CONNECTIONS: Final = 8
FLUSH_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach: a ratio V-Stack / nginx, or a plain number. `at_least` tells which side is good."""

    name: str
    limit: float
    ambitious: float | None
    at_least: bool = True

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS: Final = {
    "get_1": Target("verified GET, 1 connection, throughput", 0.9, 1.05),
    "get_8": Target("verified GET, 8 connections, throughput", 0.9, 1.05),
    "get_32": Target("verified GET, 32 connections, throughput", 0.75, 0.95),
    "get_cpu": Target("GET, CPU seconds per GB", 1.1, None, at_least=False),
    "get_p99": Target("GET, 8 connections, p99 latency", 1.6, 1.25, at_least=False),
    "put_8": Target("durable PUT, 8 connections, throughput", 0.85, None),
    "flushes": Target("flushes per PUT, 32 connections", 0.5, None, at_least=False),
}


Figures = dict[str, float]
"""What one round measured of one server, by the keys of TARGETS."""


def main() -> int:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the servers, one for the load")
    contents = [os.urandom(OBJECT_BYTES) for _ in range(OBJECTS)]
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="vstack-bench-") as name, pinned(cores[-1]):
        directory = Path(name)
        with (
            vstack(directory / "vstack", cores[0], io_threads=options.io_threads) as ours,
            nginx(directory / "nginx", cores[0], body_buffer=options.nginx_body_buffer) as theirs,
        ):
            rounds = _rounds(ours, theirs, contents, options)
    return _report(rounds, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each GET run (default 2)")
    parser.add_argument("--puts", type=int, default=160, help="objects of each PUT run (default 160)")
    parser.add_argument("--only", choices=("get", "put"), help="measure only this")
    parser.add_argument("--io-threads", type=int, default=4, help="the node's I/O threads (default 4)")
    parser.add_argument("--nginx-body-buffer", default="2m", help="nginx's client_body_buffer_size (default 2m)")
    parser.add_argument("--dir", type=Path, help="where the data directories go (default: the temp directory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


def _rounds(
    ours: Peer, theirs: Peer, contents: Sequence[bytes], options: argparse.Namespace
) -> list[dict[str, Figures]]:
    names = [f"object-{number}" for number in range(OBJECTS)]
    for peer in (ours, theirs):
        _load(peer, http_load.puts([peer.path(name) for name in names], contents), 4)
    fresh = (f"put-{number}" for number in itertools.count())
    rounds = []
    for number in range(options.rounds):
        measured: dict[str, Figures] = {peer.name: {} for peer in (ours, theirs)}
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        if options.only != "put":
            _measure_gets(order, measured, names, contents, options.seconds)
        if options.only != "get":
            for peer in order:
                paths = [peer.path(next(fresh)) for _ in range(options.puts)]
                outcome = _load(peer, http_load.puts(paths, contents), PUT_CONNECTIONS)
                measured[peer.name]["put_8"] = outcome.megabytes_per_s
            measured[ours.name]["flushes"] = _flushes_per_put(ours, fresh, contents, options.puts)
        rounds.append(measured)
        sys.stderr.write(f"round {number + 1} of {options.rounds} done\n")
    return rounds


def _measure_gets(
    order: Sequence[Peer], measured: dict[str, Figures], names: Sequence[str], contents: Sequence[bytes], seconds: float
) -> None:
    cpu_s = dict.fromkeys(measured, 0.0)
    moved_bytes = dict.fromkeys(measured, 0)
    for connections in GET_CONNECTIONS:
        for peer in order:
            requests = http_load.gets([peer.path(name) for name in names], contents, time.perf_counter() + seconds)
            before_s = peer.cpu_s()
            outcome = _load(peer, requests, connections)
            cpu_s[peer.name] += peer.cpu_s() - before_s
            moved_bytes[peer.name] += outcome.payload_bytes
            measured[peer.name][f"get_{connections}"] = outcome.megabytes_per_s
            if connections == 8:
                measured[peer.name]["get_p99"] = outcome.percentile_s(0.99)
    for name, figures in measured.items():
        figures["get_cpu"] = cpu_s[name] / moved_bytes[name] * 1e9


def _flushes_per_put(ours: Peer, fresh: Iterator[str], contents: Sequence[bytes], puts: int) -> float:
    paths = [ours.path(next(fresh)) for _ in range(puts)]
    before = ours.metric("vstack_storage_flushes_total")
    _load(ours, http_load.puts(paths, contents), FLUSH_CONNECTIONS)
    return (ours.metric("vstack_storage_flushes_total") - before) / puts


def _load(peer: Peer, requests: Iterator[http_load.Request], connections: int) -> http_load.Outcome:
    peer.settle()
    os.sync()  # what an earlier run left in the page cache must not be written back during this one
    try:
        return http_load.run(peer.port, requests, connections, object_bytes=OBJECT_BYTES)
    except http_load.WrongAnswerError as error:
        raise SystemExit(f"{peer.name}: {error}") from error


def _report(rounds: Sequence[dict[str, Figures]], destination: Path | None) -> int:
    results = [_result(key, rounds) for key in TARGETS if key in rounds[0]["V-Stack"]]
    print(f"{'figure':44}{'V-Stack':>10}{'nginx':>10}{'ratio':>8}{'target':>9}  met")
    for row in results:
        met = "yes" if row.met else "NO"
        print(f"{row.name:44}{row.vstack:>10}{row.nginx:>10}{row.value:>8.3f}{row.target:>9}  {met}")
    print(f"MB/s and seconds; medians of {len(rounds)} rounds, and the median of the rounds' own ratios")
    if destination is not None:
        machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        data = {"machine": machine, "results": [asdict(row) for row in results], "rounds": rounds}
        destination.write_text(json.dumps(data, indent=2) + "\n")
    return 0 if all(row.met for row in results) else 1


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    name: str
    vstack: str
    nginx: str
    value: float
    target: str
    ambitious: float | None
    met: bool


def _result(key: str, rounds: Sequence[dict[str, Figures]]) -> Result:
    target = TARGETS[key]
    ours = [each["V-Stack"][key] for each in rounds]
    theirs = [each["nginx"][key] for each in rounds if key in each["nginx"]]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)] if theirs else ours
    value = statistics.median(ratios)
    return Result(
        name=target.name,
        vstack=f"{statistics.median(ours):.4g}",
        nginx=f"{statistics.median(theirs):.4g}" if theirs else "",
        value=value,
        target=f"{'>=' if target.at_least else '<='}{target.limit}",
        ambitious=target.ambitious,
        met=target.met(value),
    )


if __name__ == "__main__":
    sys.exit(main())
