"""Is it alive, is it ready, does the ledger balance: for machines that watch."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.errors import Environment, ShelfsightError, StoreAway
from shared.queue import heartbeats
from shared.queues import IMAGES
from shared.storage.mongo import translate_errors
from web.batches import serializers
from web.http import problems
from web.services import Services, current_services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """This process answers."""
    return serializers.as_json({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """What accepting batches and working on them needs is there; says what is not. Inspector and sweep are asked for by ``worker.runtime.healthcheck``."""
    services = current_services()
    checks: dict[str, Callable[[Services], str | None]] = {
        "mongodb": _mongodb,
        "redis": _redis,
        "blobs": _blobs,
        "disk": _disk,
        "worker": _worker,
        "model": _model,
        "draining": _draining,
    }
    found: dict[str, str | None] = {}
    for name, check in checks.items():
        if found.get("mongodb") and check in {_worker, _model}:  # it would be asked for the same in vain
            found[name] = "Workers cannot be heard of without MongoDB."
            continue
        try:
            found[name] = check(services)
        except ShelfsightError as error:
            found[name] = error.detail
    parts = {name: {"ok": problem is None, "detail": problem} for name, problem in found.items()}
    missing = [name for name, problem in found.items() if problem is not None]
    if missing:
        return problems.problem(Environment(f"Not ready: {', '.join(missing)}.", code="not_ready", extra={"checks": parts}))
    return serializers.as_json({"status": "ready", "checks": parts})


@blueprint.get("/metrics")
def metrics() -> Response:
    """The ledger and the backlog for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Ledger(current_services()))
    return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")


class _Ledger(Collector):
    """The ledger and the backlog as gauges."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        balance, backlog = self._services.ledger.get(), self._services.backlog.get()
        ledger = GaugeMetricFamily(
            "shelfsight_ledger_images",
            "Images by what became of them; received is done + failed + cancelled + pending + deleted, or some document is missing.",
            labels=["state"],
        )
        for state, count in balance.items():
            ledger.add_metric([state], count)
        yield ledger
        yield GaugeMetricFamily("shelfsight_backlog_images", "Images that wait or are being worked on.", backlog.images)
        inspections = GaugeMetricFamily("shelfsight_inspections", "Inspections that wait (queued) or are being worked on (processing).", labels=["state"])
        for state, count in self._services.pending.get().items():
            inspections.add_metric([state], count)
        yield inspections
        yield GaugeMetricFamily("shelfsight_backlog_oldest_seconds", "Age of the oldest open batch.", backlog.oldest_age_s)


def _mongodb(services: Services) -> str | None:
    with translate_errors():  # a write, so that a read-only database shows
        services.db.heartbeats.update_one({"_id": "web"}, {"$currentDate": {"seen": True}}, upsert=True)
    return None


def _redis(services: Services) -> str | None:
    return None if services.wakeups[IMAGES].count_waiting() is not None else "Redis does not answer; uploads are accepted and wait."


def _blobs(services: Services) -> str | None:
    try:
        services.identity.check()
    except StoreAway as error:
        if error.code != StoreAway.default_code:  # else whose store it is is not known; the check of MongoDB says why
            raise
    services.blobs.write("ready/web", [b"ready"])
    return None


def _disk(services: Services) -> str | None:
    if services.blobs.free_bytes() < services.settings.blobs.min_free_bytes:
        return "Free space is below the watermark; uploads are refused."
    with suppress(StoreAway):  # what waits is not known then; the check of MongoDB says why
        services.check_room(0)
    return None


def _worker(services: Services) -> str | None:
    if heartbeats.is_worker_alive(services.db, IMAGES):
        return None
    return "Those workers that live cannot work." if heartbeats.find_impediment(services.db, IMAGES) else "No worker has been heard of lately."


def _model(services: Services) -> str | None:
    if heartbeats.find_impediment(services.db, IMAGES) != "model_unusable" or heartbeats.is_worker_alive(services.db, IMAGES):
        return None  # while others work, the last one of a roll may be hindered
    return "No worker can use the model that VISION_MODEL names; a worker's log says why."


def _draining(services: Services) -> str | None:
    file = services.settings.web.drain_file
    if file is None or not file.exists():
        return None
    return "This server is being drained (WEB_DRAIN_FILE is there): it still answers everything, but send what is new to another."
