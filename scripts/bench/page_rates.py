"""How long the list takes, near and far, filtered or not, beside page 1 and beside plain reads of the same documents."""

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
from scripts.bench.report import Row, Target, against
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
_MANY: Final = 100
_NEWEST: Final = "f" * 32
_DEPTH: Final = 0.9
_BATCHES_OF_AN_HOUR: Final = 180
_ORJSON: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def client(settings: Settings) -> FlaskClient:
    """Give a client of the real web application in this process, set up as gunicorn sets up its workers.

    What it logs is formatted as shipped and thrown away.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        app = create_app(settings)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in web/server/gunicorn_conf.py; the baselines run under the same
    return app.test_client()


def pages_of(seeded: int, batches: int) -> list[int]:
    """Give the pages to look at: those of the target, nearer in proportion when fewer batches were seeded.

    :param seeded: batches of the scope before any was deleted; ``batches``: those left. A page past the end becomes the last full one.
    """
    return sorted({min(max(1, page * seeded // _FULL_BATCHES), batches // _PER_PAGE) for page in _FULL_PAGES})


def pages(web: FlaskClient, query: dict[str, str], numbers: list[int], batches: int, *, rounds: int) -> list[Row]:
    """Compare far pages with page 1.

    :param numbers: the pages, the first is 1; ``batches``: how many the query lists.
    """
    name = ", ".join(query.values()) or "all"

    def look(page: int) -> Callable[[], float]:
        def run() -> float:
            asked = query | {"page": str(page), "per_page": str(_PER_PAGE)}
            took, found = _ask(web, asked)
            if len(found["batches"]) != _PER_PAGE or found["total"] != batches:
                raise RuntimeError(
                    f"{asked}: {len(found['batches'])} batches of {found['total']}, wanted 3 of {batches}."
                )
            return took

        return run

    times = interleave({str(page): look(page) for page in numbers}, rounds, warmups=2)
    first = 1000 * median(times["1"])
    return [
        against(
            f"{name}: page {page:,} beside page 1", 1000 * median(times[str(page)]), "ms", first, at_most=_FLAT_AT_MOST
        )
        for page in numbers[1:]
    ]


def cursors(web: FlaskClient, ids: list[str], *, rounds: int) -> list[Row]:
    """Compare a cursor near the newest batch with one behind nine tenths of all, for each filter."""
    oldest = len(ids) * seed_database.APART
    newest_at = _time_of(ids[-1])
    deep = ids[int(len(ids) * (1 - _DEPTH))]
    filters: dict[str, dict[str, str]] = {
        "no filter": {},
        "store_name": {"store_name": seed_database.STORE},
        "store_name, rarer": {"store_name": seed_database.OTHERS[0]},
        "camera_id": {"camera_id": "cam-3"},
        "barcode": {"barcode": "4000000000007"},
        "status=done": {"status": "done"},
        "status=failed": {"status": "failed"},
        "status=partial": {"status": "partial"},
        "label": {"label": seed_database.LABELS[5]},
        "label, rare": {"label": seed_database.RARE_LABEL},
        "min_score": {"min_score": "0.9"},
        "label and min_score": {"label": seed_database.LABELS[5], "min_score": "0.95"},
        "tag": {"tag": seed_database.TAG},
        "since": {"since": _iso(newest_at - oldest * 0.99)},
        "until": {"until": _iso(newest_at)},
        "since and until": {"since": _iso(newest_at - oldest * 0.99), "until": _iso(newest_at)},
        "store_name, label, since": {
            "store_name": seed_database.STORE,
            "label": seed_database.LABELS[7],
            "since": _iso(newest_at - oldest * 0.99),
        },
    }

    def look(query: dict[str, str], cursor: str) -> Callable[[], float]:
        def run() -> float:
            took, found = _ask(web, query | {"cursor": cursor, "per_page": str(_PER_PAGE)})
            if len(found["batches"]) != _PER_PAGE:
                raise RuntimeError(f"{query}: only {len(found['batches'])} batches.")
            return took

        return run

    rows = []
    for name, query in filters.items():
        times = interleave({"near": look(query, _NEWEST), "deep": look(query, deep)}, rounds, warmups=2)
        near, far = (1000 * median(times[where]) for where in ("near", "deep"))
        rows.append(against(f"cursor, {name}: deep beside near", far, "ms", near, at_most=_FLAT_AT_MOST))
    end = int(len(ids) * (1 - _DEPTH))
    hour = {"since": _iso(_time_of(ids[end - _BATCHES_OF_AN_HOUR])), "until": _iso(_time_of(ids[end]))}
    times = interleave({"newest": look(hour, _NEWEST), "there": look(hour, ids[end])}, rounds, warmups=2)
    far, near = (1000 * median(times[where]) for where in ("newest", "there"))
    rows.append(
        against("cursor, an old hour: from the newest batch beside from there", far, "ms", near, at_most=_FLAT_AT_MOST)
    )
    return rows


def delete_some(db: Db, ids: list[str], share: float) -> int:
    """Delete a random share of the batches through the ledger; give how many are left."""
    gone = random.Random(5).sample(ids, int(len(ids) * share))
    for batch_id in gone:
        deletion.begin_delete(db, batch_id)
    return len(ids) - len(gone)


def count_of_store(db: Db) -> int:
    """Count the batches of the store that holds half of all."""
    return db.batches.count_documents(page_index.listed_query(seed_database.STORE))


def large_page(web: FlaskClient, servers: Servers, *, rounds: int) -> list[Row]:
    """Compare a page of 100 batches with all their images with plain reads of the same documents."""
    query = {"per_page": str(_MANY)}
    ways: dict[str, Callable[[], bytes]] = {
        "ours": lambda: web.get("/image_batches", query_string=query).data,
        "plain": lambda: _plain(servers.db),
        "mongoengine": _mongoengine,
    }

    def timed(name: str) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            body = ways[name]()
            took = time.perf_counter() - began
            images = sum(len(batch["images"]) for batch in orjson.loads(body)["batches"])
            if images != _MANY * seed_database.PER_BATCH:
                raise RuntimeError(f"{name} gave {images} images.")
            return took

        return run

    me.connect(host=servers.mongod.url, db=servers.db.name, uuidRepresentation="standard")
    try:
        times = interleave({name: timed(name) for name in ways}, rounds, warmups=2)
    finally:
        me.disconnect()
    mine, floor, objects = (1000 * median(times[name]) for name in ways)
    beside = "page of 100 batches, 3,200 images"
    times_as_long = Target(at_least=_MONGOENGINE_AT_LEAST)
    return [
        against(f"{beside}: beside pymongo + orjson", mine, "ms", floor, at_most=_PLAIN_AT_MOST),
        Row(
            f"{beside}: MongoEngine objects take so many times as long",
            mine,
            "ms",
            objects,
            objects / mine,
            times_as_long,
        ),
    ]


def _plain(db: Db) -> bytes:
    """Read the same documents the straightforward way: two finds, one dump."""
    batches = list(db.batches.find({"listed": True}).sort("_id", DESCENDING).limit(_MANY))
    images: dict[str, list[Document]] = {batch["_id"]: [] for batch in batches}
    for image in db.images.find({"batch_id": {"$in": list(images)}}, {"work": 0}).sort([("batch_id", 1), ("index", 1)]):
        images[image["batch_id"]].append(image)
    for batch in batches:
        batch["images"] = images[batch["_id"]]
    return orjson.dumps({"batches": batches}, option=_ORJSON)


def _mongoengine() -> bytes:
    """Read them as MongoEngine objects, as a service written with its documents does."""
    batches = list(Batch.objects(listed=True).order_by("-id").limit(_MANY))
    images: dict[str, list[Any]] = {batch.id: [] for batch in batches}
    for image in Image.objects(batch_id__in=list(images)).exclude("work").order_by("batch_id", "index"):
        images[image.batch_id].append(image.to_mongo())
    shown = [batch.to_mongo().to_dict() | {"images": images[batch.id]} for batch in batches]
    return orjson.dumps({"batches": shown}, option=_ORJSON)


def _ask(web: FlaskClient, query: dict[str, str]) -> tuple[float, Document]:
    """Ask for a list; give the seconds until the whole answer was there, and the answer.

    :raises RuntimeError: it was not 200.
    """
    began = time.perf_counter()
    answer = web.get("/image_batches", query_string=query)
    body = answer.data
    took = time.perf_counter() - began
    if answer.status_code != 200:
        raise RuntimeError(f"{query} was answered {answer.status_code}: {body[:300]!r}")
    found: Document = orjson.loads(body)
    return took, found


def _time_of(batch_id: str) -> datetime:
    """Read the time out of a UUIDv7."""
    return datetime.fromtimestamp(int(batch_id[:12], 16) / 1000, UTC).replace(tzinfo=None)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"
