"""Measure how long lists of batches take, relative to page 1 and to plain reads of the same documents."""

import contextlib
import gc
import io
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import mongoengine as me
import orjson
from flask.testing import FlaskClient
from pymongo import DESCENDING

from scripts.bench import seed_database
from scripts.bench.report import Row, Target, compare
from scripts.bench.servers import Servers
from scripts.bench.timing import interleave, median
from shared.ledger import deletion, page_index
from shared.settings import Settings
from shared.storage.mongo import Db, Document
from shared.storage.schema import Batch, Image
from web.app import create_app

_PER_PAGE: Final = 3
_FULL_PAGES: Final = (1, 2600, 5200, 7800, 10400)
_FULL_BATCHES: Final = 31_250
_FLAT_AT_MOST: Final = 2.0
_PLAIN_AT_MOST: Final = 2.0
_MONGOENGINE_AT_LEAST: Final = 8.0
_LARGE_PAGE: Final = 100
_NEWEST: Final = "f" * 32
_BATCHES_OF_AN_HOUR: Final = 180
_ORJSON: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def create_client(settings: Settings) -> FlaskClient:
    """Return a test client of the real web application, which runs in this process.

    As in a gunicorn worker, the garbage collector has the production settings, and each log line is formatted. The
    formatted lines are discarded.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        app = create_app(settings)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in web/server/gunicorn_conf.py; the baselines run with the same settings
    return app.test_client()


def pages_to_measure(seeded: int, batches: int) -> list[int]:
    """Return the page numbers to measure.

    These are ``_FULL_PAGES``. If fewer than ``_FULL_BATCHES`` batches were seeded, they are reduced in proportion.

    :param seeded: number of batches in the list before any were deleted.
    :param batches: number of batches in the list now. A page past the end is replaced by the last full page.
    """
    return sorted({min(max(1, page * seeded // _FULL_BATCHES), batches // _PER_PAGE) for page in _FULL_PAGES})


def measure_pages(web: FlaskClient, query: dict[str, str], numbers: list[int], batches: int, *, rounds: int) -> list[Row]:
    """Measure how long the service takes to return each page of the list of batches.

    :param query: the filters of the list; empty for all batches.
    :param numbers: the numbers of the pages to measure, beginning with 1.
    :param batches: number of batches that match ``query``.
    :returns: one row for each page except page 1, with the milliseconds for this page and for page 1, and their ratio.
    """
    name = ", ".join(query.values()) or "all"

    def measure(page: int) -> Callable[[], float]:
        def run() -> float:
            page_query = query | {"page": str(page), "per_page": str(_PER_PAGE)}
            elapsed, found = _get_list(web, page_query)
            if len(found["batches"]) != _PER_PAGE or found["total"] != batches:
                raise RuntimeError(
                    f"{page_query}: the page has {len(found['batches'])} of {found['total']} batches, expected {_PER_PAGE} of {batches}."
                )
            return elapsed

        return run

    times = interleave({str(page): measure(page) for page in numbers}, rounds, warmups=2)
    first = 1000 * median(times["1"])
    return [
        compare(
            f"{name}: page {page:,} beside page 1", 1000 * median(times[str(page)]), "ms", first, at_most=_FLAT_AT_MOST
        )
        for page in numbers[1:]
    ]


def measure_cursors(web: FlaskClient, ids: list[str], *, depth: float, rounds: int) -> list[Row]:
    """Compare, for each filter, the time of a page at the beginning of the list with that of a page deep in the list.

    The former begins at the newest batch, the latter after the fraction ``depth`` of all batches. An additional row uses a filter
    that selects one old hour. It compares the page from a cursor at the newest batch with the page from a cursor at
    this hour.

    :param ids: ids of the batches, with the oldest first.
    """
    oldest = len(ids) * seed_database.BATCH_INTERVAL
    newest_at = _time_of(ids[-1])
    deep = ids[int(len(ids) * (1 - depth))]
    filters: dict[str, dict[str, str]] = {
        "no filter": {},
        "store_name": {"store_name": seed_database.STORE},
        "store_name, rarer": {"store_name": seed_database.OTHER_STORES[0]},
        **seed_database.FILTERS,
        "since": {"since": _iso(newest_at - oldest * 0.99)},
        "until": {"until": _iso(newest_at)},
        "since and until": {"since": _iso(newest_at - oldest * 0.99), "until": _iso(newest_at)},
        "store_name, label, since": {
            "store_name": seed_database.STORE,
            "label": seed_database.LABELS[7],
            "since": _iso(newest_at - oldest * 0.99),
        },
    }

    def measure(query: dict[str, str], cursor: str) -> Callable[[], float]:
        def run() -> float:
            elapsed, found = _get_list(web, query | {"cursor": cursor, "per_page": str(_PER_PAGE)})
            if len(found["batches"]) != _PER_PAGE:
                raise RuntimeError(f"{query}: the page has {len(found['batches'])} batches, expected {_PER_PAGE}.")
            return elapsed

        return run

    rows = []
    for name, query in filters.items():
        times = interleave({"near": measure(query, _NEWEST), "deep": measure(query, deep)}, rounds, warmups=2)
        near, far = (1000 * median(times[position]) for position in ("near", "deep"))
        rows.append(compare(f"cursor, {name}: deep beside near", far, "ms", near, at_most=_FLAT_AT_MOST))
    end = int(len(ids) * (1 - depth))
    hour = {"since": _iso(_time_of(ids[end - _BATCHES_OF_AN_HOUR])), "until": _iso(_time_of(ids[end]))}
    times = interleave({"newest": measure(hour, _NEWEST), "hour": measure(hour, ids[end])}, rounds, warmups=2)
    far, near = (1000 * median(times[position]) for position in ("newest", "hour"))
    rows.append(
        compare("cursor, an old hour: from the newest batch beside from there", far, "ms", near, at_most=_FLAT_AT_MOST)
    )
    return rows


def delete_batches(db: Db, ids: list[str], share: float) -> int:
    """Delete a random selection of the batches as the service does, and return the number of batches left.

    :param share: fraction of the batches to delete, from 0 to 1.
    """
    deleted = random.Random(5).sample(ids, int(len(ids) * share))
    for batch_id in deleted:
        deletion.begin_delete(db, batch_id, None)
    return len(ids) - len(deleted)


def count_batches_of_store(db: Db) -> int:
    """Count the batches of the store ``seed_database.STORE``, to which half of all seeded batches belong."""
    return db.batches.count_documents(page_index.listed_query(seed_database.STORE))


def measure_large_page(web: FlaskClient, servers: Servers, *, rounds: int) -> list[Row]:
    """Compare the time in which the service returns 100 batches with all their images with the times of two baselines.

    The baselines read the same documents directly: one with pymongo and orjson, the other with MongoEngine.
    """
    query = {"per_page": str(_LARGE_PAGE)}
    readers: dict[str, Callable[[], bytes]] = {
        "ours": lambda: web.get("/image_batches", query_string=query).data,
        "plain": lambda: _read_plain(servers.db),
        "mongoengine": _read_with_mongoengine,
    }

    def measure(name: str) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            body = readers[name]()
            elapsed = time.perf_counter() - started
            images = sum(len(batch["images"]) for batch in orjson.loads(body)["batches"])
            if images != _LARGE_PAGE * seed_database.PER_BATCH:
                raise RuntimeError(f"{name} returned {images} images, expected {_LARGE_PAGE * seed_database.PER_BATCH}.")
            return elapsed

        return run

    me.connect(host=servers.mongod.url, db=servers.db.name, uuidRepresentation="standard")
    try:
        times = interleave({name: measure(name) for name in readers}, rounds, warmups=2)
    finally:
        me.disconnect()
    ours, plain, mongoengine = (1000 * median(times[name]) for name in readers)
    name = "page of 100 batches, 3,200 images"
    return [
        compare(f"{name}: beside pymongo + orjson", ours, "ms", plain, at_most=_PLAIN_AT_MOST),
        Row(
            f"{name}: MongoEngine objects take so many times as long",
            ours,
            "ms",
            mongoengine,
            mongoengine / ours,
            Target(at_least=_MONGOENGINE_AT_LEAST),
        ),
    ]


def _read_plain(db: Db) -> bytes:
    """Read the documents of the large page with two ``find`` calls, and encode them with one ``orjson.dumps``."""
    batches = list(db.batches.find({"listed": True}).sort("_id", DESCENDING).limit(_LARGE_PAGE))
    images: dict[str, list[Document]] = {batch["_id"]: [] for batch in batches}
    for image in db.images.find({"batch_id": {"$in": list(images)}}, {"work": 0}).sort([("batch_id", 1), ("index", 1)]):
        images[image["batch_id"]].append(image)
    for batch in batches:
        batch["images"] = images[batch["_id"]]
    return orjson.dumps({"batches": batches}, option=_ORJSON)


def _read_with_mongoengine() -> bytes:
    """Read the documents of the large page as MongoEngine objects, as a service built on MongoEngine does."""
    batches = list(Batch.objects(listed=True).order_by("-id").limit(_LARGE_PAGE))
    images: dict[str, list[Any]] = {batch.id: [] for batch in batches}
    for image in Image.objects(batch_id__in=list(images)).exclude("work").order_by("batch_id", "index"):
        images[image.batch_id].append(image.to_mongo())
    with_images = [batch.to_mongo().to_dict() | {"images": images[batch.id]} for batch in batches]
    return orjson.dumps({"batches": with_images}, option=_ORJSON)


def _get_list(web: FlaskClient, query: dict[str, str]) -> tuple[float, Document]:
    """Request the list of batches.

    :returns: the seconds until the whole response was read, and the parsed response.
    :raises RuntimeError: when the status of the response is not 200.
    """
    started = time.perf_counter()
    response = web.get("/image_batches", query_string=query)
    body = response.data
    elapsed = time.perf_counter() - started
    if response.status_code != 200:
        raise RuntimeError(f"{query}: unexpected response: status {response.status_code}, expected 200: {body[:300]!r}")
    page: Document = orjson.loads(body)
    return elapsed, page


def _time_of(batch_id: str) -> datetime:
    """Return the time that a UUIDv7 contains."""
    return datetime.fromtimestamp(int(batch_id[:12], 16) / 1000, UTC).replace(tzinfo=None)


def _iso(time_utc: datetime) -> str:
    return time_utc.isoformat(timespec="seconds") + "Z"
