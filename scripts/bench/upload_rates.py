"""Measure the rate of accepted uploads, by wall clock and server CPU, against bare reads and a naive service."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from scripts.bench.baselines import naive
from scripts.bench.http_client import ClientGroup
from scripts.bench.report import Row, Target, compare
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Servers, cpu_seconds, running
from scripts.bench.timing import interleave, median
from shared.storage.blob_keys import SPOOL

BARE_READ: Final = "bare read"
BARE_WRITE: Final = "bare read + one file"
NAIVE: Final = "naive"
OURS: Final = "shelfsight"
_AT_LEAST_OF_READ: Final = 0.4
_AT_LEAST_OF_WRITE: Final = 0.6
_AT_LEAST_OF_NAIVE: Final = 6.5
_SETTLE_TIMEOUT_S: Final = 60.0
_CPU_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
"""The smallest CPU time that the kernel reports. A few small requests can take less, which is reported as zero."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The cost of one burst in seconds per request: wall time, and CPU time of the server, MongoDB and Redis."""

    wall: float
    server: float
    mongod: float
    redis: float


def measure(servers: Servers, upload: Upload, *, rounds: int, clients: tuple[int, ...], requests: int) -> list[Row]:
    """Compare the requests per second of the service with those of three baselines.

    The service and the baselines are measured in turn.

    :param clients: numbers of simultaneous clients; the service and the baselines are measured with each number.
    :param requests: number of requests per burst, from all clients together. It must be small, because the naive
        implementation keeps all of them in Redis, with 12 MB per request, and Redis can use at most 256 MB.
    """
    written = servers.folder / "kept"
    written.mkdir()
    environment = {**servers.environment, "BENCH_FOLDER": str(written)}
    applications = {
        BARE_READ: "scripts.bench.baselines.bare:read_body",
        BARE_WRITE: "scripts.bench.baselines.bare:write_body",
        NAIVE: "scripts.bench.baselines.naive:create_app()",
        OURS: WEB,
    }
    with contextlib.ExitStack() as stack:
        apps: dict[str, Gunicorn] = {}
        for name, application in applications.items():
            apps[name] = Gunicorn(name.replace(" ", "-"), application, environment, servers.folder)
            stack.enter_context(running(apps[name]))
        rows: list[Row] = []
        for number in clients:
            groups = {name: ClientGroup.create(number, app.port) for name, app in apps.items()}
            bursts = {
                name: _burst(servers, apps[name], groups[name], upload, each=requests // number, written=written)
                for name in apps
            }
            samples = interleave(bursts, rounds)
            for group in groups.values():
                group.close()
            rows += _rows("one client" if number == 1 else f"{number} clients", samples)
    return rows


def _burst(
    servers: Servers, app: Gunicorn, group: ClientGroup, upload: Upload, *, each: int, written: Path
) -> Callable[[], Sample]:
    requests = each * len(group.clients)

    def run() -> Sample:
        pids = (app.pid, servers.mongod.pid, servers.redis.pid)
        cpu_before = [cpu_seconds(pid) for pid in pids]
        wall = group.burst(upload, each)
        used = [cpu_seconds(pid) - before for pid, before in zip(pids, cpu_before, strict=True)]
        _clean_up(servers, written)
        return Sample(wall / requests, used[0] / requests, used[1] / requests, used[2] / requests)

    return run


def _clean_up(servers: Servers, written: Path) -> None:
    """Remove the files and messages of a burst, and wait until Redis has rewritten its append-only file.

    Otherwise, the files, the messages and the rewriting would slow down the application that is measured next.
    """
    for folder in (written, servers.blobs / SPOOL):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    with redis.Redis.from_url(servers.redis.url, socket_timeout=_SETTLE_TIMEOUT_S) as client:
        if client.delete(naive.QUEUE):
            deadline = time.monotonic() + _SETTLE_TIMEOUT_S
            while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < deadline:
                time.sleep(0.1)  # poll, because Redis sends no notification


def _rows(who: str, samples: dict[str, list[Sample]]) -> list[Row]:
    wall = {name: median(sample.wall for sample in of_subject) for name, of_subject in samples.items()}
    # CPU clocks tick at 10 ms, so only the sum over all rounds is accurate, not the figure of one burst.
    cpu = {name: sum(sample.server for sample in of_subject) / len(of_subject) for name, of_subject in samples.items()}
    ours = samples[OURS]
    rows = []
    for unit, cost in (("requests/s", wall), ("requests/server CPU s", cpu)):
        by = "wall" if cost is wall else "server CPU"
        rate = {name: 1 / (seconds or _CPU_TICK_S) for name, seconds in cost.items()}
        rows += [
            compare(f"{who}, by {by}: of a bare read", rate[OURS], unit, rate[BARE_READ], at_least=_AT_LEAST_OF_READ),
            compare(
                f"{who}, by {by}: of a bare read with one file + fdatasync",
                rate[OURS],
                unit,
                rate[BARE_WRITE],
                at_least=_AT_LEAST_OF_WRITE if cost is wall else None,
            ),
            compare(
                f"{who}, by {by}: of the naive way",
                rate[OURS],
                unit,
                rate[NAIVE],
                at_least=_AT_LEAST_OF_NAIVE if cost is wall else None,
            ),
        ]
    for name, part in (("MongoDB", [sample.mongod for sample in ours]), ("Redis", [sample.redis for sample in ours])):
        rows.append(Row(f"{who}: CPU of {name} a request", 1000 * sum(part) / len(part), "ms"))
    rows.append(Row(f"{who}: wall time of a request", 1000 * wall[OURS], "ms"))
    return rows


def redis_bytes(servers: Servers, upload: Upload, *, batches: int) -> list[Row]:
    """Measure how many bytes one batch needs in Redis, and how many bytes are sent to Redis for it.

    The service is compared with the naive implementation. No worker runs, so nothing is removed from Redis.
    """
    names = {OURS: WEB, NAIVE: "scripts.bench.baselines.naive:create_app()"}
    stored: dict[str, float] = {}
    sent: dict[str, float] = {}
    for name, application in names.items():
        app = Gunicorn(f"redis-{name}", application, servers.environment, servers.folder)
        with running(app), redis.Redis.from_url(servers.redis.url, socket_timeout=_SETTLE_TIMEOUT_S) as client:
            count = batches if name == OURS else 2
            group = ClientGroup.create(1, app.port)
            group.burst(upload, 1)
            client.flushall()
            before = client.info("stats")["total_net_input_bytes"]
            for _ in range(count):
                group.burst(upload, 1)
                time.sleep(0.2)  # otherwise, one wakeup is sent for two batches
            group.close()
            sent[name] = (client.info("stats")["total_net_input_bytes"] - before) / count
            stored[name] = sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter()) / count
            client.flushall()
    return [
        Row("memory in Redis a batch", stored[OURS], "bytes", stored[NAIVE], stored[OURS] / stored[NAIVE]),
        Row("bytes sent to Redis a batch", sent[OURS], "bytes", sent[NAIVE], sent[OURS] / sent[NAIVE]),
        Row("memory in Redis a batch, bound", stored[OURS], "bytes", target=Target(at_most=2048)),
    ]
