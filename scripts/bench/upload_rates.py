"""How fast uploads are accepted, by wall and by server CPU, against floors and against the naive way."""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from scripts.bench.baselines import naive
from scripts.bench.http_client import Crowd
from scripts.bench.report import Row, Target, against
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Servers, cpu_s, running
from scripts.bench.timing import interleave, median
from shared.storage.blob_keys import SPOOL

READ: Final = "bare read"
KEEP: Final = "bare read + one file"
NAIVE: Final = "naive"
OURS: Final = "shelfsight"
_AT_LEAST_OF_READ: Final = 0.4
_AT_LEAST_OF_NAIVE: Final = 6.0
_SETTLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst, seconds a request: wall, CPU of the server's processes, of MongoDB, of Redis."""

    wall: float
    server: float
    mongod: float
    redis: float


def measure(servers: Servers, upload: Upload, *, rounds: int, clients: tuple[int, ...], requests: int) -> list[Row]:
    """Let all four servers take turns.

    :param clients: numbers of clients that post at the same time; together they post ``requests`` times a burst. The naive way
        keeps all of that in Redis, 12 MB a request, and 256 MB is what Redis may use.
    """
    kept = servers.folder / "kept"
    kept.mkdir()
    environment = {**servers.environment, "BENCH_FOLDER": str(kept)}
    applications = {
        READ: "scripts.bench.baselines.bare:read",
        KEEP: "scripts.bench.baselines.bare:keep",
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
            crowds = {name: Crowd.of(number, app.port) for name, app in apps.items()}
            bursts = {
                name: _burst(servers, apps[name], crowds[name], upload, each=requests // number, kept=kept)
                for name in apps
            }
            samples = interleave(bursts, rounds)
            for crowd in crowds.values():
                crowd.close()
            rows += _rows("one client" if number == 1 else f"{number} clients", samples)
    return rows


def _burst(
    servers: Servers, app: Gunicorn, crowd: Crowd, upload: Upload, *, each: int, kept: Path
) -> Callable[[], Sample]:
    requests = each * len(crowd.posters)

    def run() -> Sample:
        pids = (app.pid, servers.mongod.pid, servers.redis.pid)
        before = [cpu_s(pid) for pid in pids]
        wall = crowd.burst(upload, each)
        used = [cpu_s(pid) - at for pid, at in zip(pids, before, strict=True)]
        _tidy(servers, kept)
        return Sample(wall / requests, used[0] / requests, used[1] / requests, used[2] / requests)

    return run


def _tidy(servers: Servers, kept: Path) -> None:
    """Remove what a burst has written, and wait until Redis has done with its log: the next burst is another's."""
    for folder in (kept, servers.blobs / SPOOL):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
    with redis.Redis.from_url(servers.redis.url, socket_timeout=_SETTLE_S) as client:
        if client.delete(naive.QUEUE):
            until = time.monotonic() + _SETTLE_S
            while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < until:
                time.sleep(0.1)  # polling: Redis does not say when


def _rows(who: str, samples: dict[str, list[Sample]]) -> list[Row]:
    wall = {name: median(sample.wall for sample in all_) for name, all_ in samples.items()}
    # CPU clocks tick at 10 ms: the sum over all rounds is exact, a burst's share is not.
    cpu = {name: sum(sample.server for sample in all_) / len(all_) for name, all_ in samples.items()}
    ours = samples[OURS]
    rows = []
    for unit, cost in (("requests/s", wall), ("requests/server CPU s", cpu)):
        by = "wall" if cost is wall else "server CPU"
        rate = {name: 1 / seconds for name, seconds in cost.items()}
        rows += [
            against(f"{who}, by {by}: of a bare read", rate[OURS], unit, rate[READ], at_least=_AT_LEAST_OF_READ),
            against(f"{who}, by {by}: of a bare read with one file + fdatasync", rate[OURS], unit, rate[KEEP]),
            against(
                f"{who}, by {by}: of the naive way",
                rate[OURS],
                unit,
                rate[NAIVE],
                at_least=_AT_LEAST_OF_NAIVE if cost is wall else None,
            ),
        ]
    for name, part in (("MongoDB", [one.mongod for one in ours]), ("Redis", [one.redis for one in ours])):
        rows.append(Row(f"{who}: CPU of {name} a request", 1000 * sum(part) / len(part), "ms"))
    rows.append(Row(f"{who}: wall time of a request", 1000 * wall[OURS], "ms"))
    return rows


def redis_bytes(servers: Servers, upload: Upload, *, batches: int) -> list[Row]:
    """Measure what a batch leaves in Redis when nobody takes the bells, and what it sends there."""
    names = {OURS: WEB, NAIVE: "scripts.bench.baselines.naive:create_app()"}
    stored: dict[str, float] = {}
    sent: dict[str, float] = {}
    for name, application in names.items():
        app = Gunicorn(f"redis-{name}", application, servers.environment, servers.folder)
        with running(app), redis.Redis.from_url(servers.redis.url, socket_timeout=_SETTLE_S) as client:
            count = batches if name == OURS else 2
            crowd = Crowd.of(1, app.port)
            crowd.burst(upload, 1)
            client.flushall()
            before = client.info("stats")["total_net_input_bytes"]
            for _ in range(count):
                crowd.burst(upload, 1)
                time.sleep(0.05)  # else one bell may stand for two batches
            crowd.close()
            sent[name] = (client.info("stats")["total_net_input_bytes"] - before) / count
            stored[name] = sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter()) / count
            client.flushall()
    return [
        Row("memory in Redis a batch", stored[OURS], "bytes", stored[NAIVE], stored[OURS] / stored[NAIVE]),
        Row("bytes sent to Redis a batch", sent[OURS], "bytes", sent[NAIVE], sent[OURS] / sent[NAIVE]),
        Row("memory in Redis a batch, bound", stored[OURS], "bytes", target=Target(at_most=2048)),
    ]
