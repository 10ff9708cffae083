"""Return the health, the readiness and the metrics of the service for monitoring."""

from collections.abc import Iterable

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.errors import Environment
from shared.jobs.records import PendingJobs
from shared.ledger import original_checks, sums
from shared.queue import heartbeats, pauses
from shared.queues import QUEUES
from web.cached_value import CachedValue
from web.http import access_rules, problems, responses
from web.operations import readiness
from web.services import Services, current_services

blueprint = Blueprint("operations", __name__)


@blueprint.get("/healthz")
@access_rules.counts_as(None)
@access_rules.public
def healthz() -> Response:
    """Return 200, which shows that this process responds."""
    return responses.json_response({"status": "ok"})


@blueprint.record
def _prepare(state: BlueprintSetupState) -> None:
    services = state.app.extensions["shelfsight"]
    state.app.extensions["readiness"] = CachedValue(
        readiness.MAX_AGE_S, lambda: readiness.find_problems(services), lasts=lambda found: not any(found.values())
    )


@blueprint.get("/readyz")
@access_rules.counts_as(None)
@access_rules.public
def readyz() -> Response:
    """Return whether everything that is needed to accept and process batches is available, and what is missing.

    The inspector and the sweep are not checked here. They have their own health check, ``worker.runtime.healthcheck``.
    """
    found: dict[str, str | None] = current_app.extensions["readiness"].get() | {"draining": _draining(current_services())}
    parts = {name: {"ok": problem is None, "detail": problem} for name, problem in found.items()}
    missing = [name for name, problem in found.items() if problem is not None]
    if missing:
        return problems.problem(Environment(f"Not ready: {', '.join(missing)}.", code="not_ready", extra={"checks": parts}))
    return responses.json_response({"status": "ready", "checks": parts})


@blueprint.get("/metrics")
@access_rules.requires("metrics:read")
def metrics() -> Response:
    """Return Prometheus metrics: the ledger (images in each state), the backlog, and the pending inspections and jobs."""
    registry = CollectorRegistry()
    registry.register(_LedgerCollector(current_services()))
    return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")


class _LedgerCollector(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        totals = sums.read_totals(self._services.db)
        if totals is not None:
            yield from _ledger(totals)
        backlog = self._services.backlog.get()
        yield GaugeMetricFamily("shelfsight_backlog_images", "Number of images that are queued or being processed.", backlog.images)
        inspections = GaugeMetricFamily("shelfsight_inspections", "Number of inspections that are queued or being processed.", labels=["state"])
        for state, count in self._services.pending_inspections.get().items():
            inspections.add_metric([state], count)
        yield inspections
        yield from _jobs(self._services.pending_jobs.get())
        yield from _queues(self._services)
        checks = original_checks.read(self._services.db)
        yield CounterMetricFamily("shelfsight_originals_checked", "Number of times that the sweep hashed a random original.", checks.checked)
        yield CounterMetricFamily("shelfsight_originals_damaged", "Number of these checks in which the original was missing or damaged.", checks.damaged)
        yield GaugeMetricFamily("shelfsight_backlog_oldest_seconds", "Age of the oldest batch that is not finished, in seconds.", backlog.oldest_age_s)
        yield GaugeMetricFamily("shelfsight_backlog_age_seconds", "Time since the backlog was measured, in seconds.", self._services.backlog.age_s())


def _jobs(pending: PendingJobs) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("shelfsight_jobs", "Number of jobs that are queued or running.", labels=["state"])
    jobs.add_metric(["queued"], pending.queued)
    jobs.add_metric(["running"], pending.running)
    yield jobs
    yield GaugeMetricFamily("shelfsight_jobs_oldest_queued_seconds", "Age of the oldest job that is queued, in seconds.", pending.oldest_queued_s)


def _queues(services: Services) -> Iterable[Metric]:
    paused = GaugeMetricFamily("shelfsight_queue_paused", "1 if the queue is paused, so that workers claim nothing from it; otherwise 0.", labels=["queue"])
    workers = GaugeMetricFamily("shelfsight_workers", "Number of workers that consume the queue, are alive, and can work.", labels=["queue"])
    pauses_now = pauses.read_pauses(services.db)
    for queue in QUEUES:
        paused.add_metric([queue.label], int(queue in pauses_now))
        workers.add_metric([queue.label], heartbeats.count_workers(services.db, queue))
    yield paused
    yield workers


def _ledger(totals: sums.Totals) -> Iterable[Metric]:
    """Yield the metrics of the ledger. They are missing until the sweep has counted for the first time."""
    ledger = GaugeMetricFamily(
        "shelfsight_ledger_images",
        "Number of images in each state. If received differs from done + failed + cancelled + pending + deleted, a document is missing.",
        labels=["state"],
    )
    for state, count in totals.counts.items():
        ledger.add_metric([state], count)
    yield ledger
    yield GaugeMetricFamily(
        "shelfsight_ledger_missing_images", "Number of image documents that are missing, so they were removed by hand or lost. 0 if the ledger balances.", totals.missing
    )
    yield GaugeMetricFamily(
        "shelfsight_ledger_unbalanced_batches",
        "Number of batches that lack image documents, or have too many. The log of the sweep names them.",
        totals.unbalanced_batches,
    )
    yield GaugeMetricFamily("shelfsight_ledger_age_seconds", "Time since the sweep updated the numbers of images in each state, in seconds.", totals.age_s)
    yield GaugeMetricFamily(
        "shelfsight_ledger_oldest_recount_seconds",
        "Time since the batches were counted whose last count was the longest time ago, in seconds. A document removed since then may not show yet.",
        totals.oldest_recount_age_s,
    )


def _draining(services: Services) -> str | None:
    file = services.settings.web.drain_file
    if file is None or not file.exists():
        return None
    return "This server is being drained, because the file that WEB_DRAIN_FILE names exists. It still serves requests, but new requests should be sent to another server."
