"""Measure inspections by URL: cached results, new images, and many requests for one URL.

Cached results are compared with an empty route, and new images with Thumbor.
"""

import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from scripts.bench import image_server, sample_uploads
from scripts.bench.baselines import packages
from scripts.bench.download_rates import Downloaders, Source
from scripts.bench.extent import Extent
from scripts.bench.report import Row, Target, compare
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from scripts.bench.timing import interleave, median
from scripts.bench.waiting import wait_until
from scripts.local.servers.ports import LOOPBACK, free_port

IMAGE_BYTES: Final = 300_000
_CORES: Final = 2
_CLIENTS: Final = 8
_CONCURRENT_CLIENTS: Final = 200
_CACHED_AT_LEAST: Final = 0.5
_FRESH_AT_LEAST: Final = 1.0
_READY_TIMEOUT_S: Final = 120.0
_RESPONSE_TIMEOUT_S: Final = 60.0
_JSON: Final = {"Accept": "application/json"}
_LIFTED_LIMITS: Final = {
    "FETCH_PERMITTED_NETWORKS": '["127.0.0.0/8"]',
    "FETCH_MAX_PER_SOURCE": "16",
    "INSPECT_PER_MINUTE": "1000000",
    "WEB_THREADS": "32",
}
"""Environment variables that lift the limits on requests and fetches, because all images come from one source on this
machine. A quarter of the 32 threads of a web process can wait for inspections, which is enough for all clients."""
_THUMBOR: Final = "STORAGE = 'thumbor.storages.no_storage'\nRESULT_STORAGE = None\nHTTP_LOADER_MAX_CLIENTS = 64\n"
"""Configuration of Thumbor, which stores nothing and therefore has less to do than the service."""


class Testbed:
    """The processes for the measurements.

    - an image source
    - the service, with one inspector and one web process per core
    - ``one_web``: a web front with a single process
    - ``empty``: a server with an empty route and a single process, with which ``one_web`` is compared

    The constructor starts all processes and waits until they are ready. Closing ``stack`` stops them.
    """

    def __init__(self, servers: Servers, stack: contextlib.ExitStack) -> None:
        folder = servers.folder
        image = folder / "image.jpg"
        image.write_bytes(sample_uploads.draw_jpeg(1, IMAGE_BYTES))
        self.servers = servers
        self._url_numbers = itertools.count()
        self.source_port = free_port()
        source = Process("source", ["scripts.bench.image_server", str(self.source_port), str(image)], {}, folder)
        stack.enter_context(running(source))
        environment = servers.environment | _LIFTED_LIMITS
        self.web = _Web("web", environment, folder, workers=_CORES)
        stack.enter_context(running(self.web))
        self.one_web = Gunicorn("web-one", WEB, environment, folder)
        stack.enter_context(running(self.one_web))
        self.empty = Gunicorn("empty", "scripts.bench.baselines.empty:create_app()", {}, folder)
        stack.enter_context(running(self.empty))
        stack.enter_context(running(Process("inspector", ["worker.entrypoints.inspections"], environment, folder)))
        stack.enter_context(running(Process("sweep", ["worker.entrypoints.sweep"], environment, folder)))
        _wait_until(lambda: servers.db.workers.count_documents({}) == 1)

    def new_url(self) -> str:
        """Return the URL of an image that was not requested before."""
        return f"http://{LOOPBACK}:{self.source_port}/{next(self._url_numbers)}.jpg"

    def request_count(self) -> int:
        """Return the number of image requests that the source has received."""
        return int(_get(self.source_port, image_server.REQUEST_COUNT_PATH, {})[1])

    def thumbor(self, stack: contextlib.ExitStack, extent: Extent) -> int:
        """Start Thumbor with as many processes as cores, and return its port.

        :raises packages.NotInstalled: when Thumbor cannot be installed, or in a smoke run.
        """
        installed = packages.installed_folder("thumbor", extent)
        settings = self.servers.folder / "thumbor.conf"
        settings.write_text(_THUMBOR)
        port = free_port()
        options = [f"--port={port}", f"--ip={LOOPBACK}", f"--conf={settings}", f"--processes={_CORES}", "--log-level=error"]
        process = Process("thumbor", ["thumbor.server", *options], {"PYTHONPATH": str(installed)}, self.servers.folder)
        stack.enter_context(running(process))
        _wait_until(lambda: _is_up(port, "/healthcheck"))
        return port


class _Web(Process):
    """The web front with several worker processes."""

    def __init__(self, name: str, environment: dict[str, str], logs: Path, *, workers: int) -> None:
        self.port = free_port()
        own = {"WEB_WORKERS": str(workers), "WEB_PORT": str(self.port)}
        super().__init__(name, ["gunicorn", "-c", "web/server/gunicorn_conf.py", WEB], environment | own, logs)
        _wait_until(lambda: _is_up(self.port, "/healthz"))


def measure_cached(testbed: Testbed, extent: Extent) -> list[Row]:
    """Compare the requests per second of a single web process with those of a server that has only an empty route.

    The web process responds with an inspection that it has cached.
    """
    path = f"/?url={quote(testbed.new_url(), safe='')}&augmentations=horizontal_flip"
    _inspect(testbed.one_web.port, path)
    seconds, rounds = extent.choose(full=(3.0, 9), quick=(1.0, 3), smoke=(0.1, 1))
    ours = Source(LOOPBACK, testbed.one_web.port, path, _JSON)
    empty = Source(LOOPBACK, testbed.empty.port, "/", _JSON)
    with Downloaders(1, 4) as downloaders:
        subjects = {"ours": partial(downloaders.per_second, ours, seconds), "empty": partial(downloaders.per_second, empty, seconds)}
        rates = {name: median(samples) for name, samples in interleave(subjects, rounds).items()}
    return [compare("cached answers, of an empty route of one web process", rates["ours"], "answers/s", rates["empty"], at_least=_CACHED_AT_LEAST)]


def measure_fresh(testbed: Testbed, extent: Extent) -> list[Row]:
    """Compare the rate at which the service fetches, reduces and flips new images with the rate of Thumbor.

    An image counts as soon as the client has received the last byte of the flipped image.
    """
    count, rounds = extent.choose(full=(192, 9), quick=(64, 3), smoke=(8, 1))
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Callable[[], float]] = {"ours": lambda: _rate(lambda: _flip_with_service(testbed), count)}
        try:
            port = testbed.thumbor(stack, extent)
            subjects["thumbor"] = lambda: _rate(lambda: _flip_with_thumbor(testbed, port), count)
        except packages.NotInstalled as error:
            print(f"Thumbor is left out: {error}")
        rates = {name: median(samples) for name, samples in interleave(subjects, rounds).items()}
    name = f"fresh pictures of {IMAGE_BYTES // 1000} KB, smaller and turned round, {_CLIENTS} clients, limits lifted"
    if "thumbor" not in rates:
        return [Row(name, rates["ours"], "pictures/s")]
    return [compare(f"{name}, of Thumbor with {_CORES} processes", rates["ours"], "pictures/s", rates["thumbor"], at_least=_FRESH_AT_LEAST)]


def measure_together(testbed: Testbed) -> list[Row]:
    """Send many concurrent requests for the inspection of one new URL, and count how often the service did the work.

    The image must be fetched once and inspected once, and one result must be stored. All responses must be equal.
    """
    url = testbed.new_url()
    db = testbed.servers.db
    requests_before, results_before = testbed.request_count(), db.inspection_results.count_documents({})
    path = f"/img?url={quote(url, safe='')}"
    started = time.perf_counter()
    with ThreadPoolExecutor(_CONCURRENT_CLIENTS) as threads:
        jobs = [threads.submit(_inspect, testbed.web.port, path, "POST") for _ in range(_CONCURRENT_CLIENTS)]
        responses = [job.result() for job in jobs]
    elapsed = time.perf_counter() - started
    if len({json.dumps(response, sort_keys=True) for response in responses}) != 1:
        raise RuntimeError("The responses to concurrent requests for one URL are not all equal.")
    fences = [job["fence"] for job in db.inspections.find({"url": url}, {"fence": 1})]
    name = f"{_CONCURRENT_CLIENTS} ask for one new URL at once"
    return [
        Row(f"{name}: fetches", testbed.request_count() - requests_before, "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: times that it was worked on", sum(fences), "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: results", db.inspection_results.count_documents({}) - results_before, "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: until the last has its answer", elapsed, "s"),
    ]


def _flip_with_service(testbed: Testbed) -> Iterator[None]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, testbed.web.port, timeout=_RESPONSE_TIMEOUT_S)) as connection:
        while True:
            inspection = _inspect_over(connection, f"/?url={quote(testbed.new_url(), safe='')}&augmentations=horizontal_flip&wait=30")
            path = inspection["augmentations"][0]["url"].partition(str(testbed.web.port))[2]
            connection.request("GET", path)
            _read_ok(connection.getresponse())
            yield


def _flip_with_thumbor(testbed: Testbed, port: int) -> Iterator[None]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_RESPONSE_TIMEOUT_S)) as connection:
        while True:
            connection.request("GET", f"/unsafe/fit-in/-700x700/{quote(testbed.new_url(), safe='')}")
            _read_ok(connection.getresponse())
            yield


def _rate(create_client: Callable[[], Iterator[None]], count: int) -> float:
    """Perform ``count`` requests in total with several clients, and return the requests per second.

    :param create_client: function that returns an iterator; each step of the iterator performs one request.
    """
    remaining = iter(range(count))  # the threads share this iterator, because each of its steps is atomic

    def run() -> None:
        client = create_client()
        for _ in remaining:
            next(client)

    started = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        for job in [threads.submit(run) for _ in range(_CLIENTS)]:
            job.result()
    return count / (time.perf_counter() - started)


def _inspect(port: int, path: str, method: str = "GET") -> Any:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_RESPONSE_TIMEOUT_S)) as connection:
        return _inspect_over(connection, path, method)


def _inspect_over(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> Any:
    """Request an inspection and return its JSON result.

    While the response is 202, the inspection is not finished: wait for ``Retry-After``, then request the URL in the
    ``Location`` header.
    """
    connection.request(method, path, headers=_JSON)
    response = connection.getresponse()
    while response.status == 202:
        response.read()
        time.sleep(int(response.headers["Retry-After"]))  # the service asks its clients to wait for so long
        connection.request("GET", f"{response.headers['Location']}?wait=30", headers=_JSON)
        response = connection.getresponse()
    return json.loads(_read_ok(response))


def _read_ok(response: http.client.HTTPResponse) -> bytes:
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"Unexpected response: status {response.status}, expected 200: {body[:300]!r}")
    return body


def _get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_RESPONSE_TIMEOUT_S)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def _is_up(port: int, path: str) -> bool:
    try:
        return _get(port, path, {})[0] == 200
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    wait_until(condition, _READY_TIMEOUT_S, "A process was not ready")
