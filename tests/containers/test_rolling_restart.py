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
    """People who browse without ever trying twice."""

    def __init__(self, url: str, path: str) -> None:
        self._url, self._path = url, path
        self._stop = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_READERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                for path in ("/image_batches", "/", "/limits", self._path):
                    try:
                        status = client.get(path).status_code
                    except httpx.HTTPError as error:
                        self.failed.append(f"{path}: {type(error).__name__} {error}")
                        continue
                    self.answered += 1
                    if status != 200:
                        self.failed.append(f"{path}: {status}")
                self._stop.wait(0.02)


class SlowUploads:
    """One after the other begins, and each takes so long that some are under way whenever something is replaced."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._statuses: list[int] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def end(self) -> list[int]:
        self._stop.set()
        self._thread.join(_SLOW_S + 90)
        assert not self._thread.is_alive()
        return self._statuses

    async def _run(self) -> None:
        source = random.Random(78)
        tasks = []
        while not self._stop.is_set():
            tasks.append(asyncio.create_task(upload_slowly(self._url, draw_valid_image(source), _SLOW_S)))
            await asyncio.sleep(_SLOW_EVERY_S)
        self._statuses = list(await asyncio.gather(*tasks))


def test_web_worker_and_sweep_are_replaced_and_no_request_fails(
    deployment: Deployment, url: str, client: httpx.Client, say: Callable[[str], None]
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
    said: list[str] = []
    started = deployment.as_started()
    assert [Path(file).name for file in started.files] == ["docker-compose.yaml"]
    roll(started, SERVICES, said.append)
    reading.end()
    statuses = slow.end()
    assert load.finish(60)
    assert reading.failed == []
    assert load.retries.total() == 0, load.retries
    assert len(statuses) >= 20
    assert set(statuses) == {202}
    assert find_problems(client, load.accepted, before, others=len(statuses)) == []
    for service in SERVICES:
        new = set(deployment.containers(service))
        assert len(new) == len(old[service])
        assert not new & old[service]
    assert deployment.containers("web-next", running=False) == []
    say(f"{reading.answered} pages and files, {len(load.accepted)} uploads and {len(statuses)} slow ones, 0 failed; {said}")


def test_a_roll_that_was_broken_off_is_finished_by_the_next(deployment: Deployment, url: str) -> None:
    deployment.compose("--profile", "roll", "up", "--detach", "--no-deps", "--wait", "web-next", limit_s=120)
    deployment.execute(deployment.containers("nginx")[0], "touch", "/tmp/nginx/roll")
    deployment.compose("stop", "web")  # here it was ended: others stand in, the old ones are gone
    lost, kept = deployment.containers("worker")
    deployment.manage("stop", lost)
    deployment.manage("rm", lost)  # and one worker had been taken away
    reading = ReadLoad(url, "/readyz")
    roll(deployment.as_started(), ("web", "worker"), lambda _: None)
    reading.end()
    assert reading.answered > 100
    assert [one for one in reading.failed if not one.startswith("/readyz: 503")] == []  # those that drain say so
    assert deployment.containers("web-next", running=False) == []
    workers = deployment.containers("worker")
    assert len(workers) == 2
    assert kept not in workers
