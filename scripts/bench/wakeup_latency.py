"""From the 202 to the claim: on an idle machine, and when Redis comes back with nothing in it."""

import shutil
import statistics
import time
from typing import Final

from scripts.bench.http_client import Poster
from scripts.bench.report import Row, Target
from scripts.bench.sample_uploads import Upload
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from shared.ids import image_id

_LOOK_S: Final = 0.002
_CLAIMED_S: Final = 60.0
_READY_S: Final = 180.0
_IDLE_AT_MOST_S: Final = 0.2
_EMPTY_AT_MOST_S: Final = 5.0


def measure(servers: Servers, upload: Upload, *, idle: int, outages: int) -> list[Row]:
    """Run web, one worker and the sweep as shipped, and watch the database for the claim.

    :param upload: one image.
    :param idle: uploads on the idle machine; ``outages``: times that Redis is killed and comes back empty.
    """
    environment = servers.environment
    web = Gunicorn("latency-web", WEB, environment, servers.folder)
    worker = Process("latency-worker", ["worker.entrypoints.images"], environment, servers.folder)
    sweep = Process("latency-sweep", ["worker.entrypoints.sweep"], environment, servers.folder)
    with running(web, worker, sweep):
        poster = Poster(web.port)
        _finished(servers, worker, poster.post(upload)["batch_id"])  # the model is loaded now
        quiet = []
        for _ in range(idle):
            time.sleep(1)  # idle means idle
            batch_id = poster.post(upload)["batch_id"]
            quiet.append(_claimed_after(servers, worker, batch_id, time.perf_counter()))
            _finished(servers, worker, batch_id)
        empty = [_outage(servers, worker, poster, upload) for _ in range(outages)]
        poster.close()
    return [
        Row("202 to claimed, idle: median", statistics.median(quiet), "s", target=Target(at_most=_IDLE_AT_MOST_S)),
        Row("202 to claimed, idle: slowest", max(quiet), "s", target=Target(at_most=_IDLE_AT_MOST_S)),
        Row("Redis back and empty to claimed: slowest", max(empty), "s", target=Target(at_most=_EMPTY_AT_MOST_S)),
    ]


def _outage(servers: Servers, worker: Process, poster: Poster, upload: Upload) -> float:
    """Accept a batch while Redis is dead; give the seconds from its coming back, empty, to the claim."""
    time.sleep(1)  # the worker has nothing more to claim and waits for a bell
    servers.redis.kill()
    shutil.rmtree(servers.redis.folder)
    servers.redis.folder.mkdir()
    batch_id = poster.post(upload)["batch_id"]
    time.sleep(3)  # let everybody notice, and their breakers open
    if _state(servers, batch_id) != "queued":
        raise RuntimeError("The batch was claimed without a bell: this measures nothing.")
    servers.redis.start()
    took = _claimed_after(servers, worker, batch_id, time.perf_counter())
    _finished(servers, worker, batch_id)
    return took


def _claimed_after(servers: Servers, worker: Process, batch_id: str, since: float) -> float:
    """Give the seconds from ``since`` until the batch's first image is no longer queued, to within a few milliseconds."""
    while _state(servers, batch_id) == "queued":
        if time.perf_counter() - since > _CLAIMED_S:
            worker.check()
            raise RuntimeError(f"Nobody claimed within {_CLAIMED_S:.0f} s; see {worker.log}")
        time.sleep(_LOOK_S)  # polling: this is how exactly the time is known
    return time.perf_counter() - since


def _state(servers: Servers, batch_id: str) -> str:
    found = servers.db.images.find_one({"_id": image_id(batch_id, 0)}, {"status": 1})
    if found is None:
        raise RuntimeError("An accepted image is not in the database.")
    return str(found["status"])


def _finished(servers: Servers, worker: Process, batch_id: str) -> None:
    until = time.monotonic() + _READY_S
    while (state := _state(servers, batch_id)) != "done":
        worker.check()
        if state == "failed" or time.monotonic() > until:
            raise RuntimeError(f"The image is {state}; see {worker.log}")
        time.sleep(0.1)  # polling; nothing is measured here
