"""The checks of ``/readyz``: what is needed to accept and process batches."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shared.errors import ShelfsightError, StoreAway, StoreMisconfigured
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.indexes import find_missing_indexes
from shared.storage.mongo import translate_errors
from web.services import Services

MAX_AGE_S: Final = 1.0
"""Requests within this number of seconds get the result of the same checks, because these checks write to the database
and to the disk, and anybody can request them. A result with a problem is used for a tenth of a second only: each
process checks for itself, and after one of them has found everything ready, another must not show an older problem."""


def find_problems(services: Services) -> dict[str, str | None]:
    """Run all checks. Return for each the sentence that says what is missing, or None."""
    checks: dict[str, Callable[[Services], str | None]] = {
        "mongodb": _mongodb,
        "indexes": _indexes,
        "redis": _redis,
        "blobs": _blobs,
        "disk": _disk,
        "worker": _worker,
        "model": _model,
    }
    found: dict[str, str | None] = {}
    for name, check in checks.items():
        if found.get("mongodb") and check in {_indexes, _worker, _model}:  # the heartbeats of the workers are in MongoDB
            found[name] = "The state is unknown because MongoDB is unavailable."
            continue
        try:
            found[name] = check(services)
        except ShelfsightError as error:
            found[name] = error.detail
    return found


def _mongodb(services: Services) -> str | None:
    with translate_errors():  # the check writes a document, so it also fails if the database is read-only
        services.db.heartbeats.update_one({"_id": "web"}, {"$currentDate": {"seen": True}}, upsert=True)
    return None


def _indexes(services: Services) -> str | None:
    missing = find_missing_indexes(services.db)
    if not missing:
        return None
    return f"The database lacks indexes ({', '.join(map(str, missing))}); run scripts/admin migrate, which creates them or says why not."


def _redis(services: Services) -> str | None:
    return None if services.wakeups[IMAGES].count_waiting() is not None else "Redis does not respond; uploads are accepted, but their processing is delayed."


def _blobs(services: Services) -> str | None:
    try:
        services.identity.check()
    except StoreAway as error:
        # The expected identity of the blob store is in MongoDB. Ignore the errors of MongoDB, because _mongodb reports
        # them.
        if error.code not in {StoreAway.default_code, StoreMisconfigured.default_code}:
            raise
    services.blobs.write("ready/web", [b"ready"])
    return None


def _disk(services: Services) -> str | None:
    if services.blobs.free_bytes() < services.settings.blobs.min_free_bytes:
        return "Free disk space is below BLOBS_MIN_FREE_BYTES, so uploads are refused; free some disk space."
    with suppress(StoreAway):  # without MongoDB, the size of the backlog is unknown; _mongodb reports the reason
        services.check_free_space(0)
    return None


def _worker(services: Services) -> str | None:
    if heartbeats.is_worker_alive(services.db, IMAGES):
        return None
    return "The running workers cannot process images; see their log for the reason." if heartbeats.find_impediment(services.db, IMAGES) else "No worker has sent a heartbeat recently; check whether a worker is running."


def _model(services: Services) -> str | None:
    if heartbeats.find_impediment(services.db, IMAGES) != "model_unusable" or heartbeats.is_worker_alive(services.db, IMAGES):
        return None  # during a rolling update, some workers may be unable to load the model while other workers process images
    return "No worker can load the model that VISION_MODEL names; see the log of a worker for the reason."
