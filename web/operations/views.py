"""Is it alive, is it ready, does the ledger balance: for machines that watch."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.errors import Environment, ShelfsightError, StoreAway
from shared.media_types import BATCHES
from shared.queue import heartbeats
from shared.storage.mongo import translated
from web.batches import serializers
from web.http import problems
from web.services import Services, services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """This process answers."""
    return serializers.as_json({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """What accepting batches and working on them needs is there; says what is not. Inspector and sweep are asked for by ``worker.runtime.healthcheck``."""
    at_work = services()
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
            found[name] = check(at_work)
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
    registry.register(_Ledger(services()))
    return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")


class _Ledger(Collector):
    """The ledger and the backlog as gauges."""

    def __init__(self, at_work: Services) -> None:
        self._services = at_work

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


def _mongodb(at_work: Services) -> str | None:
    with translated():  # a write, so that a read-only database shows
        at_work.db.heartbeats.update_one({"_id": "web"}, {"$currentDate": {"seen": True}}, upsert=True)
    return None


def _redis(at_work: Services) -> str | None:
    return None if at_work.bell.waiting() is not None else "Redis does not answer; uploads are accepted and wait."


def _blobs(at_work: Services) -> str | None:
    try:
        at_work.bond.check()
    except StoreAway as error:
        if error.code != StoreAway.default_code:  # else whose store it is is not known; the check of MongoDB says why
            raise
    at_work.blobs.write("ready/web", [b"ready"])
    return None


def _disk(at_work: Services) -> str | None:
    if at_work.blobs.free_bytes() < at_work.settings.blobs.min_free_bytes:
        return "Free space is below the watermark; uploads are refused."
    with suppress(StoreAway):  # what waits is not known then; the check of MongoDB says why
        at_work.check_room(0)
    return None


def _worker(at_work: Services) -> str | None:
    if heartbeats.worker_is_heard(at_work.db, BATCHES):
        return None
    return "Those workers that live cannot work." if heartbeats.hindrance(at_work.db, BATCHES) else "No worker has been heard of lately."


def _model(at_work: Services) -> str | None:
    if heartbeats.hindrance(at_work.db, BATCHES) != "model_unusable" or heartbeats.worker_is_heard(at_work.db, BATCHES):
        return None  # while others work, the last one of a roll may be hindered
    return "No worker can use the model that VISION_MODEL names; a worker's log says why."


def _draining(at_work: Services) -> str | None:
    file = at_work.settings.web.drain_file
    if file is None or not file.exists():
        return None
    return "This server is being drained (WEB_DRAIN_FILE is there): it still answers everything, but send what is new to another."
