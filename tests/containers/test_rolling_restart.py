"""A rolling restart under load: no request fails."""

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from scripts.containers.engine import Deployment
from scripts.containers.rolling_restart import SERVICES, roll
from tests.containers.oracle import find_problems, read_backlog, read_ledger
from tests.containers.slow_upload import upload_slowly
from tests.faults.images import draw_valid_image
from tests.faults.upload_load import UploadLoad
from tests.support.service_stack import wait_until

_READERS: Final = 4
_SLOW_S: Final = 12.0
_SLOW_EVERY_S: Final = 0.5


class ReadLoad:
    """Clients that read pages in a loop and never retry a request."""

    def __init__(self, url: str, path: str) -> None:
        self._url, self._path = url, path
        self._stopped = threading.Event()
        self.responses = 0
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_READERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stopped.is_set():
                for path in ("/image_batches", "/", "/limits", self._path):
                    try:
                        status = client.get(path).status_code
                    except httpx.HTTPError as error:
                        self.failed.append(f"{path}: {type(error).__name__} {error}")
                        continue
                    self.responses += 1
                    if status != 200:
                        self.failed.append(f"{path}: {status}")
                self._stopped.wait(0.02)


class SlowUploads:
    """Starts slow uploads at intervals, so that some are in progress whenever a container is replaced."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopped = threading.Event()
        self._statuses: list[int] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> list[int]:
        self._stopped.set()
        self._thread.join(_SLOW_S + 90)
        assert not self._thread.is_alive()
        return self._statuses

    async def _run(self) -> None:
        generator = random.Random(78)
        tasks = []
        while not self._stopped.is_set():
            tasks.append(asyncio.create_task(upload_slowly(self._url, draw_valid_image(generator), _SLOW_S)))
            await asyncio.sleep(_SLOW_EVERY_S)
        self._statuses = list(await asyncio.gather(*tasks))


def test_web_worker_and_sweep_are_replaced_and_no_request_fails(
    deployment: Deployment, url: str, client: httpx.Client, report: Callable[[str], None]
) -> None:
    before = read_ledger(client)
    load = UploadLoad(url, 77, lambda: read_backlog(url))
    first = load.send([draw_valid_image(random.Random(77))])
    wait_until(lambda: client.get(f"/image_batches/{first.batch_id}").json()["finished_at"], 60, "the first batch is done")
    image_id = client.get(f"/image_batches/{first.batch_id}").json()["images"][0]["id"]
    reading = ReadLoad(url, f"/uploads/{image_id}/boxes.jpg")
    load.start()
    slow = SlowUploads(url)
    old = {service: set(deployment.containers(service)) for service in SERVICES}
    messages: list[str] = []
    started = deployment.as_started()
    assert [Path(file).name for file in started.files] == ["docker-compose.yaml"]
    roll(started, SERVICES, messages.append)
    reading.stop()
    statuses = slow.stop()
    assert load.finish(60)
    assert reading.failed == []
    assert load.retries.total() == 0, load.retries
    assert len(statuses) >= 20
    assert set(statuses) == {202}
    assert find_problems(client, load.accepted, before, other_images=len(statuses)) == []
    for service in SERVICES:
        new = set(deployment.containers(service))
        assert len(new) == len(old[service])
        assert not new & old[service]
    assert deployment.containers("web-next", running=False) == []
    report(f"{reading.responses} pages and files, {len(load.accepted)} uploads and {len(statuses)} slow ones, 0 failed; {messages}")


def test_an_interrupted_rolling_restart_is_finished_by_the_next(deployment: Deployment, url: str) -> None:
    deployment.compose("--profile", "roll", "up", "--detach", "--no-deps", "--wait", "web-next", limit_s=120)
    deployment.execute(deployment.containers("nginx")[0], "touch", "/tmp/nginx/roll")
    deployment.compose("stop", "web")  # the state at the interruption: the temporary replicas run, the old ones are gone
    removed, remaining = deployment.containers("worker")
    deployment.manage("stop", removed)
    deployment.manage("rm", removed)  # and one worker has been removed
    reading = ReadLoad(url, "/readyz")
    roll(deployment.as_started(), ("web", "worker"), lambda _: None)
    reading.stop()
    assert reading.responses > 100
    assert [failure for failure in reading.failed if not failure.startswith("/readyz: 503")] == []  # a draining replica is not ready
    assert deployment.containers("web-next", running=False) == []
    workers = deployment.containers("worker")
    assert len(workers) == 2
    assert remaining not in workers
