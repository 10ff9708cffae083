"""Measure the same operations in databases of different sizes, and compare each size with the smallest one."""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import orjson
from flask.testing import FlaskClient

from scripts.bench import growth_seed, page_rates, seed_database
from scripts.bench.report import Row, compare
from scripts.bench.timing import interleave, median, seconds
from shared import settings
from shared.augmentations import DEFAULT_AUGMENTATIONS
from shared.bootstrap import open_stores
from shared.ids import new_batch_id
from shared.ledger import audit, claims, closing, commits, deletion, results, turns
from shared.ledger.results import Result
from shared.storage.mongo import Db
from web.operations import readiness
from web.services import Services
from worker.sweep.sweep import Sweep

_AT_MOST: Final = 2.0
_CLAIM: Final = 32
_LEASE_S: Final = 60.0
_PER_PAGE: Final = 3
_HOUR: Final = 180
"""Number of batches in an hour."""
_IMAGES_OF_LARGE_BATCH: Final = 1000
_FIELDS: Final = (
    "width",
    "height",
    "exif",
    "quality",
    "detections",
    "model",
    "augmentations",
    "barcodes",
    "barcode_check",
)

Sample = dict[str, float]
"""Seconds of each step of a measurement, by name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One database with ``images`` processed images, and the service that uses it.

    ``ids`` are the ids of the seeded batches that are not deleted, with the oldest first.
    """

    images: int
    ids: list[str]
    db: Db
    web: FlaskClient
    services: Services
    sweep: Sweep

    @classmethod
    def create(cls, images: int, ids: list[str], app_settings: settings.Settings) -> "Subject":
        """Create the service for a seeded database."""
        web = page_rates.create_client(app_settings)
        services = web.application.extensions["shelfsight"]
        sweep = Sweep(open_stores(app_settings, app="bench"))
        return cls(images, ids, services.db, web, services, sweep)

    def get(self, path: str, **query: str) -> Any:
        """Request ``path``, and return the parsed JSON response.

        :raises RuntimeError: when the status of the response is not 200.
        """
        response = self.web.get(path, query_string=query)
        if response.status_code != 200:
            raise RuntimeError(f"{path} {query}: status {response.status_code}, expected 200: {response.data[:300]!r}")
        return orjson.loads(response.data)


def measure(subjects: Sequence[Subject], step: Callable[[Subject], Sample], rounds: int) -> list[Row]:
    """Run ``step`` with each subject in turn, and compare the median times of each subject with those of the first.

    :returns: one row for each further subject and each part of the sample, with milliseconds.
    """
    samples = interleave({str(number): partial(step, subject) for number, subject in enumerate(subjects)}, rounds)
    rows = []
    for name in samples["0"][0]:
        times = [1000 * median(sample[name] for sample in samples[str(number)]) for number in range(len(subjects))]
        rows += [
            compare(
                f"{name}: {subject.images:,} images beside {subjects[0].images:,}",
                value,
                "ms",
                times[0],
                at_most=_AT_MOST,
            )
            for subject, value in zip(subjects[1:], times[1:], strict=True)
        ]
    return rows


def process_batch(subject: Subject) -> Sample:
    """Accept, claim, finish and close one batch of 32 images, as the web front and a worker do it in the ledger."""
    db = subject.db
    batch = _new_batch([growth_seed.store_name(1)] * _CLAIM)
    commit_s = seconds(lambda: _commit(db, batch))
    sample, closed = _process(db)
    if closed != 1:
        raise RuntimeError("The claim does not hold exactly the images of the batch.")
    # The files of the batch do not exist, so the sweep must not look for them.
    db.batches.update_one({"_id": batch.id}, {"$unset": {"spooled": "", "unswept": ""}})
    return {"upload commit": commit_s} | sample


def _process(db: Db) -> tuple[Sample, int]:
    sample: Sample = {}
    started = time.perf_counter()
    claim = claims.claim(db, "bench", _CLAIM, _LEASE_S)
    sample["claim of up to 32"] = time.perf_counter() - started
    rng = random.Random(1)
    done = [seed_database.finish_image(rng, dict(image), datetime.now(UTC)) for image in claim.images]
    stored = [
        Result(*lease, {name: image[name] for name in _FIELDS}) for lease, image in zip(claim.leases, done, strict=True)
    ]
    sample["finish of these"] = seconds(lambda: results.finish(db, "bench", stored))
    started = time.perf_counter()
    closed = closing.close_batches(db, {image["batch_id"] for image in claim.images})
    sample["close"] = time.perf_counter() - started
    return sample, len(closed)


def read_pages(subject: Subject) -> Sample:
    """Request the first and the last page of all batches and of one store."""
    sample: Sample = {}
    for name, query in {"all": {}, "one store": {"store_name": growth_seed.store_name(0)}}.items():
        get = partial(subject.get, "/image_batches", per_page=str(_PER_PAGE), **query)
        started = time.perf_counter()
        first = get()
        sample[f"page 1, {name}"] = time.perf_counter() - started
        last = partial(get, page=str(first["pages"]))
        sample[f"farthest page, {name}"] = seconds(last)
    return sample


def read_by_cursor(subject: Subject) -> Sample:
    """Request the first page by cursor, without a filter and with each filter."""
    hour_ago = _created_at(subject.ids[-min(_HOUR, len(subject.ids))])
    filters: dict[str, dict[str, str]] = {
        "no filter": {},
        "store_name": {"store_name": growth_seed.store_name(0)},
        **seed_database.FILTERS,
        "since": {"since": hour_ago},
        "until": {"until": hour_ago},
        "store_name and label": {"store_name": growth_seed.store_name(0), "label": seed_database.LABELS[7]},
    }
    first = partial(subject.get, "/image_batches", cursor="newest", per_page=str(_PER_PAGE))
    return {f"cursor, {name}": seconds(partial(first, **query)) for name, query in filters.items()}


def delete_batch(subject: Subject) -> Sample:
    """Delete a random batch, without its files."""
    batch_id = subject.ids.pop(random.randrange(len(subject.ids)))
    return {"deletion of a batch": seconds(lambda: deletion.begin_delete(subject.db, batch_id, None))}


def read_state(subject: Subject) -> Sample:
    """Run the checks of ``/readyz``, measure the backlog as a web process does in the background, and read the metrics.

    :raises RuntimeError: when one of them fails. A check that fails early would seem to be quick.
    """
    sample: Sample = {}
    started = time.perf_counter()
    problems = readiness.find_problems(subject.services)
    sample["/readyz, its checks"] = time.perf_counter() - started
    missing = {name for name, problem in problems.items() if problem is not None}
    if missing - {"worker"}:  # the benchmark processes images without a worker
        raise RuntimeError(f"/readyz: {problems}")
    started = time.perf_counter()
    response = subject.web.get("/metrics")
    sample["/metrics"] = time.perf_counter() - started
    if response.status_code != 200:
        raise RuntimeError(f"/metrics: status {response.status_code}, expected 200")
    sample["backlog, in the background"] = seconds(lambda: audit.backlog(subject.db))
    return sample


def sweep_once(subject: Subject) -> Sample:
    """Run one tick of the sweep."""
    return {"one tick of the sweep": seconds(subject.sweep.tick)}


def work_for_many_stores(subject: Subject) -> Sample:
    """Claim and finish images while very many stores wait, and run one tick of the sweep."""
    sample, _ = _process(subject.db)
    return {f"{name}, many stores waiting": took for name, took in (sample | sweep_once(subject)).items()}


def let_stores_wait(db: Db, stores: int) -> None:
    """Accept batches of 1,000 images in which each image belongs to another store."""
    for first in range(0, stores, _IMAGES_OF_LARGE_BATCH):
        names = [growth_seed.store_name(number) for number in range(first, min(first + _IMAGES_OF_LARGE_BATCH, stores))]
        _commit(db, _new_batch(names))


def _commit(db: Db, batch: commits.NewBatch) -> None:
    commits.commit_batch(db, batch)
    turns.touch(db, batch.turns())


def _new_batch(stores: Iterable[str]) -> commits.NewBatch:
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    images = [
        commits.NewImage(index, "jpg", "image/jpeg", 200_000, "0" * 64, index * 200_000, now, store, "cam-1")
        for index, store in enumerate(stores)
    ]
    return commits.NewBatch(new_batch_id(), images, DEFAULT_AUGMENTATIONS, detect=True, created_at=now)


def _created_at(batch_id: str) -> str:
    """Return the time that a batch id (a UUIDv7) contains, in the form of RFC 3339."""
    return datetime.fromtimestamp(int(batch_id[:12], 16) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
