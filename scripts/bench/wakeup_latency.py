"""Measure the time from the 202 response to the claim, on an idle machine and after Redis lost its data."""

import shutil
import statistics
import time
from typing import Final

from scripts.bench.http_client import UploadClient
from scripts.bench.report import Row, Target
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from shared.ids import image_id

_POLL_INTERVAL_S: Final = 0.002
_CLAIM_TIMEOUT_S: Final = 60.0
_READY_TIMEOUT_S: Final = 180.0
_IDLE_AT_MOST_S: Final = 0.2
_EMPTY_AT_MOST_S: Final = 5.0


def measure(servers: Servers, upload: Upload, *, idle: int, outages: int) -> list[Row]:
    """Measure the seconds from an upload until a worker claims its image.

    The web front, one worker and the sweep run with default settings.

    :param upload: an upload of one image.
    :param idle: number of uploads to measure while the machine is idle.
    :param outages: number of uploads to measure that are sent while Redis is down. Their seconds are counted from the
        restart of Redis, which has then lost its data.
    """
    environment = servers.environment
    web = Gunicorn("latency-web", WEB, environment, servers.folder)
    worker = Process("latency-worker", ["worker.entrypoints.images"], environment, servers.folder)
    sweep = Process("latency-sweep", ["worker.entrypoints.sweep"], environment, servers.folder)
    with running(web, worker, sweep):
        client = UploadClient(web.port)
        _wait_until_done(servers, worker, client.post(upload)["batch_id"])  # waits until the worker has loaded its model
        client.connect()  # loading the model can take longer than the server keeps an idle connection
        idle_times = []
        for _ in range(idle):
            time.sleep(1)  # lets the machine become idle
            client.connect()
            batch_id = client.post(upload)["batch_id"]
            idle_times.append(_seconds_to_claim(servers, worker, batch_id, time.perf_counter()))
            _wait_until_done(servers, worker, batch_id)
        restart_times = [_measure_outage(servers, worker, client, upload) for _ in range(outages)]
        client.close()
    return [
        Row("202 to claimed, idle: median", statistics.median(idle_times), "s", target=Target(at_most=_IDLE_AT_MOST_S)),
        Row("202 to claimed, idle: slowest", max(idle_times), "s", target=Target(at_most=_IDLE_AT_MOST_S)),
        Row("Redis back and empty to claimed: slowest", max(restart_times), "s", target=Target(at_most=_EMPTY_AT_MOST_S)),
    ]


def _measure_outage(servers: Servers, worker: Process, client: UploadClient, upload: Upload) -> float:
    """Upload a batch while Redis is down; return the seconds from the restart of the empty Redis to the claim."""
    time.sleep(1)  # after this, the worker has nothing left to claim and waits for a wakeup
    servers.redis.kill()
    shutil.rmtree(servers.redis.data)
    servers.redis.data.mkdir()
    client.connect()
    batch_id = client.post(upload)["batch_id"]
    time.sleep(3)  # gives all processes time to notice the outage and to open their circuit breakers
    if _state(servers, batch_id) != "queued":
        raise RuntimeError("The batch was claimed without a wakeup, so the latency cannot be measured.")
    servers.redis.start()
    elapsed = _seconds_to_claim(servers, worker, batch_id, time.perf_counter())
    _wait_until_done(servers, worker, batch_id)
    return elapsed


def _seconds_to_claim(servers: Servers, worker: Process, batch_id: str, since: float) -> float:
    """Return the seconds from ``since`` until the batch's first image is no longer queued.

    The result is accurate to a few milliseconds.
    """
    while _state(servers, batch_id) == "queued":
        if time.perf_counter() - since > _CLAIM_TIMEOUT_S:
            worker.raise_if_ended()
            raise RuntimeError(f"The batch was not claimed within {_CLAIM_TIMEOUT_S:.0f} s; see {worker.log}")
        time.sleep(_POLL_INTERVAL_S)  # this interval is the resolution of the measurement
    return time.perf_counter() - since


def _state(servers: Servers, batch_id: str) -> str:
    found = servers.db.images.find_one({"_id": image_id(batch_id, 0)}, {"status": 1})
    if found is None:
        raise RuntimeError("An accepted image is not in the database.")
    return str(found["status"])


def _wait_until_done(servers: Servers, worker: Process, batch_id: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while (state := _state(servers, batch_id)) != "done":
        worker.raise_if_ended()
        if state == "failed" or time.monotonic() > deadline:
            raise RuntimeError(f"The image has the status {state}, expected done; see {worker.log}")
        time.sleep(0.1)  # poll; this wait is not measured
