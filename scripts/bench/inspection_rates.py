"""Inspections by URL: cached ones beside an empty route, fresh ones beside Thumbor, and how often one URL is fetched that many ask for."""

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
from scripts.bench.report import Row, Target, against
from scripts.bench.servers import WEB, Gunicorn, Process, Servers, running
from scripts.bench.timing import interleave, median
from scripts.local.embedded_servers import LOOPBACK, free_port

BYTES: Final = 300_000
_CORES: Final = 2
_CLIENTS: Final = 8
_MANY: Final = 200
_CACHED_AT_LEAST: Final = 0.5
_FRESH_AT_LEAST: Final = 1.0
_READY_S: Final = 120.0
_ANSWER_S: Final = 60.0
_JSON: Final = {"Accept": "application/json"}
_OPEN: Final = {
    "FETCH_PERMITTED_NETWORKS": '["127.0.0.0/8"]',
    "FETCH_MAX_PER_SOURCE": "16",
    "INSPECT_PER_MINUTE": "1000000",
    "WEB_THREADS": "32",
}
"""The source is on this machine, and the only one; a quarter of a web process' threads waits for inspections, so all clients may."""
_THUMBOR: Final = "STORAGE = 'thumbor.storages.no_storage'\nRESULT_STORAGE = None\nHTTP_LOADER_MAX_CLIENTS = 64\n"
"""It keeps nothing, so that it has less to do than we have."""


class Stand:
    """A source, the service over it with as many web processes as cores and one inspector, and the baselines. All idle until asked."""

    def __init__(self, servers: Servers, stack: contextlib.ExitStack) -> None:
        """Start everything and wait until it answers; it ends with the stack."""
        folder = servers.folder
        picture = folder / "picture.jpg"
        picture.write_bytes(sample_uploads.jpeg(1, BYTES))
        self.servers = servers
        self._numbers = itertools.count()
        self.source_port = free_port()
        processes = [Process("source", ["scripts.bench.image_server", str(self.source_port), str(picture)], {}, folder)]
        stack.enter_context(running(*processes))
        environment = servers.environment | _OPEN
        self.web = _Web("web", environment, folder, workers=_CORES)
        stack.enter_context(running(self.web))
        self.one_web = Gunicorn("web-one", WEB, environment, folder)
        stack.enter_context(running(self.one_web))
        self.empty = Gunicorn("empty", "scripts.bench.baselines.empty:create_app()", {}, folder)
        stack.enter_context(running(self.empty))
        stack.enter_context(running(Process("inspector", ["worker.entrypoints.inspections"], environment, folder)))
        stack.enter_context(running(Process("sweep", ["worker.entrypoints.sweep"], environment, folder)))
        _until(lambda: servers.db.workers.count_documents({}) == 1)

    def new_url(self) -> str:
        """Name a picture that nobody has asked for."""
        return f"http://{LOOPBACK}:{self.source_port}/{next(self._numbers)}.jpg"

    def asked(self) -> int:
        """Say how often the source was asked for a picture."""
        return int(_get(self.source_port, image_server.ASKED, {})[1])

    def thumbor(self, stack: contextlib.ExitStack) -> int:
        """Start Thumbor with as many processes as cores; give its port.

        :raises packages.NotInstalled: it cannot be had.
        """
        installed = packages.folder("thumbor")
        settings = self.servers.folder / "thumbor.conf"
        settings.write_text(_THUMBOR)
        port = free_port()
        options = [f"--port={port}", f"--ip={LOOPBACK}", f"--conf={settings}", f"--processes={_CORES}", "--log-level=error"]
        process = Process("thumbor", ["thumbor.server", *options], {"PYTHONPATH": str(installed)}, self.servers.folder)
        stack.enter_context(running(process))
        _until(lambda: _answers(port, "/healthcheck"))
        return port


class _Web(Process):
    """The web front with several processes."""

    def __init__(self, name: str, environment: dict[str, str], logs: Path, *, workers: int) -> None:
        self.port = free_port()
        own = {"WEB_WORKERS": str(workers), "WEB_PORT": str(self.port)}
        super().__init__(name, ["gunicorn", "-c", "web/server/gunicorn_conf.py", WEB], environment | own, logs)
        _until(lambda: _answers(self.port, "/healthz"))


def cached(stand: Stand, *, quick: bool) -> list[Row]:
    """Ask one web process for what it knows already, and an empty route beside it."""
    path = f"/?url={quote(stand.new_url(), safe='')}&augmentations=horizontal_flip"
    _ask(stand.one_web.port, path)
    seconds, rounds = (1.0, 3) if quick else (3.0, 9)
    ours = Source(LOOPBACK, stand.one_web.port, path, _JSON)
    empty = Source(LOOPBACK, stand.empty.port, "/", _JSON)
    with Downloaders(1, 4) as downloaders:
        subjects = {"ours": partial(downloaders.per_second, ours, seconds), "empty": partial(downloaders.per_second, empty, seconds)}
        rates = {name: median(taken) for name, taken in interleave(subjects, rounds).items()}
    return [against("cached answers, of an empty route of one web process", rates["ours"], "answers/s", rates["empty"], at_least=_CACHED_AT_LEAST)]


def fresh(stand: Stand, *, quick: bool) -> list[Row]:
    """Let both get pictures that they have not seen, make them smaller and turn them round; to the last byte at the client."""
    count, rounds = (64, 3) if quick else (192, 9)
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Callable[[], float]] = {"ours": lambda: _rate(lambda: _flipped_by_us(stand), count)}
        try:
            port = stand.thumbor(stack)
            subjects["thumbor"] = lambda: _rate(lambda: _flipped_by_thumbor(stand, port), count)
        except packages.NotInstalled as error:
            print(f"Thumbor is left out, it cannot be installed: {error}")
        rates = {name: median(taken) for name, taken in interleave(subjects, rounds).items()}
    name = f"fresh pictures of {BYTES // 1000} KB, smaller and turned round, {_CLIENTS} clients, limits lifted"
    if "thumbor" not in rates:
        return [Row(name, rates["ours"], "pictures/s")]
    return [against(f"{name}, of Thumbor with {_CORES} processes", rates["ours"], "pictures/s", rates["thumbor"], at_least=_FRESH_AT_LEAST)]


def together(stand: Stand) -> list[Row]:
    """Let many ask for one new URL at the same time."""
    url = stand.new_url()
    asked, made = stand.asked(), stand.servers.db.inspection_results.count_documents({})
    path = f"/img?url={quote(url, safe='')}"
    began = time.perf_counter()
    with ThreadPoolExecutor(_MANY) as threads:
        answers = [job.result() for job in [threads.submit(_ask, stand.web.port, path, "POST") for _ in range(_MANY)]]
    took = time.perf_counter() - began
    if len({json.dumps(answer, sort_keys=True) for answer in answers}) != 1:
        raise RuntimeError("They were not all told the same.")
    fences = [job["fence"] for job in stand.servers.db.inspections.find({"url": url}, {"fence": 1})]
    name = f"{_MANY} ask for one new URL at once"
    return [
        Row(f"{name}: fetches", stand.asked() - asked, "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: times that it was worked on", sum(fences), "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: results", stand.servers.db.inspection_results.count_documents({}) - made, "", target=Target(at_least=1, at_most=1)),
        Row(f"{name}: until the last has its answer", took, "s"),
    ]


def _flipped_by_us(stand: Stand) -> Iterator[None]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, stand.web.port, timeout=_ANSWER_S)) as connection:
        while True:
            found = _over(connection, f"/?url={quote(stand.new_url(), safe='')}&augmentations=horizontal_flip&wait=30")
            picture = found["augmentations"][0]["url"].partition(str(stand.web.port))[2]
            connection.request("GET", picture)
            _checked(connection.getresponse())
            yield


def _flipped_by_thumbor(stand: Stand, port: int) -> Iterator[None]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)) as connection:
        while True:
            connection.request("GET", f"/unsafe/fit-in/-700x700/{quote(stand.new_url(), safe='')}")
            _checked(connection.getresponse())
            yield


def _rate(begin: Callable[[], Iterator[None]], count: int) -> float:
    """Let clients do something ``count`` times together; give how often it was done a second."""
    numbers = iter(range(count))  # shared: one step of it is atomic

    def client() -> None:
        doing = begin()
        for _ in numbers:
            next(doing)

    began = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as threads:
        for job in [threads.submit(client) for _ in range(_CLIENTS)]:
            job.result()
    return count / (time.perf_counter() - began)


def _ask(port: int, path: str, method: str = "GET") -> Any:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)) as connection:
        return _over(connection, path, method)


def _over(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> Any:
    """Ask for an inspection, and wait for it where the answer says that it takes longer."""
    connection.request(method, path, headers=_JSON)
    answer = connection.getresponse()
    while answer.status == 202:
        answer.read()
        time.sleep(int(answer.headers["Retry-After"]))  # as it was told
        connection.request("GET", f"{answer.headers['Location']}?wait=30", headers=_JSON)
        answer = connection.getresponse()
    return json.loads(_checked(answer))


def _checked(answer: http.client.HTTPResponse) -> bytes:
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"answered {answer.status}: {body[:300]!r}")
    return body


def _get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _answers(port: int, path: str) -> bool:
    try:
        return _get(port, path, {})[0] == 200
    except OSError:
        return False


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _READY_S
    while not true():
        if time.monotonic() > until:
            raise RuntimeError(f"Something was not ready within {_READY_S:.0f} s.")
        time.sleep(0.1)  # polling processes that are starting
