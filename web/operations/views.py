"""Return the health, the readiness and the metrics of the service for monitoring."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.errors import Environment, ShelfsightError, StoreAway, StoreMisconfigured
from shared.ledger import original_checks
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.indexes import find_missing_indexes
from shared.storage.mongo import translate_errors
from web.http import problems, responses
from web.services import Services, current_services

blueprint = Blueprint("operations", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Return 200, which shows that this process responds."""
    return responses.json_response({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Check everything that is needed to accept and process batches, and return what is missing.

    The inspector and the sweep are not checked here. They have their own health check, ``worker.runtime.healthcheck``.
    """
    services = current_services()
    checks: dict[str, Callable[[Services], str | None]] = {
        "mongodb": _mongodb,
        "indexes": _indexes,
        "redis": _redis,
        "blobs": _blobs,
        "disk": _disk,
        "worker": _worker,
        "model": _model,
        "draining": _draining,
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
    parts = {name: {"ok": problem is None, "detail": problem} for name, problem in found.items()}
    missing = [name for name, problem in found.items() if problem is not None]
    if missing:
        return problems.problem(Environment(f"Not ready: {', '.join(missing)}.", code="not_ready", extra={"checks": parts}))
    return responses.json_response({"status": "ready", "checks": parts})


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return Prometheus metrics: the ledger (images in each state), the backlog and the pending inspections."""
    registry = CollectorRegistry()
    registry.register(_LedgerCollector(current_services()))
    return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")


class _LedgerCollector(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        balance, backlog = self._services.ledger_balance.get(), self._services.backlog.get()
        ledger = GaugeMetricFamily(
            "shelfsight_ledger_images",
            "Number of images in each state. If received differs from done + failed + cancelled + pending + deleted, a document is missing.",
            labels=["state"],
        )
        for state, count in balance.items():
            ledger.add_metric([state], count)
        yield ledger
        yield GaugeMetricFamily("shelfsight_backlog_images", "Number of images that are queued or being processed.", backlog.images)
        inspections = GaugeMetricFamily("shelfsight_inspections", "Number of inspections that are queued or being processed.", labels=["state"])
        for state, count in self._services.pending_inspections.get().items():
            inspections.add_metric([state], count)
        yield inspections
        checks = original_checks.read(self._services.db)
        yield CounterMetricFamily("shelfsight_originals_checked", "Number of times that the sweep hashed a random original.", checks.checked)
        yield CounterMetricFamily("shelfsight_originals_damaged", "Number of these checks in which the original was missing or damaged.", checks.damaged)
        yield GaugeMetricFamily("shelfsight_backlog_oldest_seconds", "Age of the oldest batch that is not finished, in seconds.", backlog.oldest_age_s)


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


def _draining(services: Services) -> str | None:
    file = services.settings.web.drain_file
    if file is None or not file.exists():
        return None
    return "This server is being drained, because the file that WEB_DRAIN_FILE names exists. It still serves requests, but new requests should be sent to another server."
