"""``scripts/status``: print the state of the installation in a data folder, and what to do about each problem."""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import psutil
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table

from scripts.local import access_modes, messages
from scripts.local.installation import DEFAULT_DATA, SAVED_VARIABLES, Installation, data_folder, load_installation
from scripts.local.servers import versions
from scripts.local.servers.errors import Unusable
from scripts.local.servers.versions import ServerAge
from scripts.local.signing_key_setup import check_signing_keys
from scripts.local.start import failed_checks
from shared import settings
from shared.accounts.signing_key_file import describe_exposure
from shared.errors import ShelfsightError
from shared.ledger import audit, dead_letters, sums
from shared.queue import pauses
from shared.storage.mongo import connect

NOT_READY: Final = 1
NOT_RUNNING: Final = 3
_OLD_S: Final = 300.0
_REMEDIES: Final = {
    "bytes_missing": "an accepted file is missing from the blob store: restore it from a backup, then upload it again",
    "decoder_crash": "processing an image crashed several processes or did not end: download the original and examine it",
    "out_of_memory": "raise WORKER_CHILD_MEMORY_BYTES, or upload a smaller image",
    "too_many_pixels": "upload a smaller image, or raise LIMITS_MAX_PIXELS",
}
"""Remedies for the error codes that an operator can act on. Any other code means that the file is damaged and must be
replaced."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The state of one process.

    ``pid`` is None while the process is not running. ``up_s`` is in seconds, and ``memory`` is in bytes. ``restarts``
    is the number of restarts since ``scripts/start`` was last run.
    """

    name: str
    pid: int | None
    up_s: float
    memory: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of an installation.

    ``starting`` is the current step of a start in progress; None if no start is in progress. ``external`` contains
    ``MONGODB_URL`` if that variable is set, and likewise ``REDIS_URL``, because ``scripts/start`` does not start such
    servers. It contains only these names, not the URLs, which may include a password. ``servers`` contains the versions
    of the embedded servers. ``not_ready`` contains the reasons for failed checks, by the name of the check; it is None
    when the web front does not respond. ``backlog``, ``ledger``, ``failed`` and ``paused`` are None when MongoDB does not respond.
    ``ledger``, which the sweep counted ``ledger_age_s`` seconds ago, is also None until the sweep has counted for the
    first time. ``failed`` counts the newest 10,000 failed images by error code. ``paused`` has the seconds since each paused queue was paused, and
    ``unbalanced`` some batches that lack image documents, or have too many. The two ``disk_`` values are in bytes.
    ``access`` says who can use the service. ``has_administrator`` is None when no credentials are needed, or MongoDB does not
    respond.
    """

    running: bool
    starting: str | None
    url: str
    processes: list[ProcessStatus]
    external: list[str]
    servers: list[ServerAge]
    not_ready: dict[str, str] | None
    disk_free: int
    disk_watermark: int
    backlog: audit.Backlog | None
    ledger: dict[str, int] | None
    ledger_age_s: float | None
    failed: dict[str, int] | None
    paused: dict[str, float] | None
    unbalanced: list[str]
    access: str
    needs_credentials: bool
    has_administrator: bool | None
    advice: list[str]


def main() -> None:
    """Print the status; exit with 0 if everything is ready, 1 if something is not, and 3 if nothing is running."""
    parser = argparse.ArgumentParser(prog="scripts/status", description="Print processes, backlog, disk space and failures, and what to do about problems.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the folder given to scripts/start (default: data)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    arguments = parser.parse_args()
    messages.print_any_text()
    data = data_folder(arguments.data)
    try:
        installation = load_installation(data)
        if installation is None:
            sys.exit(f"Nothing was started with the data folder {data} yet; run {messages.command('start', data)}")
        restore_variables(installation)
        status = read_status(installation)
    except PermissionError:
        sys.exit(f"error: {data} belongs to another user; run scripts/status as that user")
    if arguments.json:
        print(json.dumps(asdict(status)))
    else:
        _show(status)
    sys.exit(NOT_RUNNING if not status.running else NOT_READY if status.not_ready != {} else 0)


def restore_variables(installation: Installation) -> None:
    """Set the ``SAVED_VARIABLES`` in this process's environment to the values that they had at the last start."""
    for name in SAVED_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(installation.variables)


def read_status(installation: Installation) -> Status:
    """Read the state of an installation. This takes a few seconds at most, even if no server responds."""
    running = installation.find_lock_holder() is not None
    stage = installation.read_stage() if running else None
    url = installation.url
    backlog, ledger, failed, paused = _read_database(installation) if running else (None, None, None, None)
    blobs = settings.Blobs()
    status = Status(
        running=running,
        starting=stage.text if stage else None,
        url=url,
        processes=[_read_process(installation, name) for name in _process_names(installation)] if running else [],
        external=[name for name, embedded in (("MONGODB_URL", installation.embedded_mongodb), ("REDIS_URL", installation.embedded_redis)) if not embedded],
        servers=[versions.age_of(name, version, datetime.now().date()) for name, version in installation.read_programs().values()] if running else [],
        not_ready=failed_checks(url) if running else None,
        disk_free=shutil.disk_usage(installation.data / "blobs").free,
        disk_watermark=blobs.min_free_bytes,
        backlog=backlog,
        ledger=None if ledger is None else ledger.counts,
        ledger_age_s=None if ledger is None else ledger.age_s,
        failed=failed,
        paused=paused,
        unbalanced=[] if ledger is None else list(ledger.unbalanced),
        access=access_modes.describe(installation),
        needs_credentials=installation.needs_credentials,
        has_administrator=access_modes.has_administrator(installation) if running and installation.needs_credentials else None,
        advice=[],
    )
    status.advice.extend(advise(status, installation))
    return status


def advise(status: Status, installation: Installation) -> list[str]:
    """Return what the operator should do, the most urgent task first; empty if there is no problem."""
    if not status.running:
        return [f"Nothing is running; start it with {messages.command('start', installation.data)}"]
    advice = []
    if status.disk_free < status.disk_watermark:
        advice.append(
            f"Disk space is short: uploads are refused (507) until {status.disk_watermark / 1e9:.1f} GB are free under {installation.data}. "
            "Delete batches that are no longer needed, or move the folder to a larger disk."
        )
    down = [process.name for process in status.processes if process.pid is None]
    if down:
        advice.append(f"These processes are not running, because they are being restarted or fail repeatedly: {', '.join(down)}; see {installation.logs}/<name>.log")
    advice += _advise_on_readiness(status, installation)
    advice += _advise_on_signing_keys(status, installation)
    if status.ledger is not None and ((missing := sums.count_missing(status.ledger)) or status.unbalanced):
        batches = f" (batches {', '.join(status.unbalanced)})" if status.unbalanced else ""
        what = f"{missing} accepted images have no document" if missing > 0 else "there are documents that belong to no accepted image, or others are missing instead"
        advice.append(f"The ledger does not balance: {what}{batches}, so documents were changed by hand. Restore a backup.")
    advice += [
        f"The queue {name} has been paused for {_duration(seconds)}, so nothing in it is processed; resume it with POST /admin/queues/{name}/resume"
        for name, seconds in (status.paused or {}).items()
    ]
    if status.backlog is not None and status.backlog.oldest_age_s > _OLD_S:
        advice.append("The oldest batch has been waiting for more than five minutes. Start with more --workers, or add machines.")
    if status.has_administrator is False:
        advice.append(f"There is no administrator yet; create the first one with {access_modes.first_administrator_command(installation)}")
    for code in status.failed or {}:
        if code in _REMEDIES:
            advice.append(f"{code}: {_REMEDIES[code]}")
    advice += [
        f"{server.name} {server.version} has received no security fixes since {server.end_of_life}, and holes in it are published. docs/security.md describes how to use a newer one."
        for server in status.servers
        if not server.repaired
    ]
    return advice


def _advise_on_readiness(status: Status, installation: Installation) -> list[str]:
    if status.starting:
        return [f"Shelfsight is starting: {status.starting}; see {installation.logs}/guard.log"]
    if status.not_ready is None:
        return [f"The web front does not respond; see {installation.logs}/web.log"]
    return [f"{name}: {detail}" for name, detail in status.not_ready.items()]


def _advise_on_signing_keys(status: Status, installation: Installation) -> list[str]:
    path = installation.signing_keys_file
    if path is None or not installation.needs_credentials or status.starting:  # the first start creates them
        return []
    try:
        check_signing_keys(path, is_production=installation.is_production)
        exposure = describe_exposure(path)
    except (Unusable, OSError) as error:
        return [f"The service goes on with the signing keys that it has read, but only until it is stopped. {error}"]
    return [exposure] if exposure else []


def _process_names(installation: Installation) -> list[str]:
    servers = [name for name, embedded in (("mongod", installation.embedded_mongodb), ("redis", installation.embedded_redis)) if embedded]
    return ["supervisor", *servers, "web", *(f"worker-{number}" for number in range(1, installation.workers + 1)), "inspector", "jobs", "sweep"]


def _read_process(installation: Installation, name: str) -> ProcessStatus:
    try:
        restarts = max(0, (installation.run / f"{name}.starts").stat().st_size - 1)
    except OSError:
        restarts = 0
    pid = installation.pid(name)
    try:
        if pid is not None:
            process = psutil.Process(pid)
            tree = [process, *process.children(recursive=True)] if name != "supervisor" else [process]
            memory = sum(member.memory_info().rss for member in tree)
            return ProcessStatus(name, pid, time.time() - process.create_time(), memory, restarts)
    except psutil.Error:
        pass  # the process ended in the meantime
    return ProcessStatus(name, None, 0.0, 0, restarts)


def _read_database(
    installation: Installation,
) -> tuple[audit.Backlog | None, sums.Totals | None, dict[str, int] | None, dict[str, float] | None]:
    try:
        db = connect(settings.Mongo(url=installation.mongodb_url()), app="status")
        with db.client:
            paused = {queue.label: pause.age_s for queue, pause in pauses.read_pauses(db).items()}
            return audit.backlog(db), sums.read_totals(db), dead_letters.failures_by_code(db), paused
    except (ShelfsightError, PyMongoError, Unusable):
        return None, None, None, None


def _show(status: Status) -> None:
    console = Console(highlight=False)
    console.print(f"Shelfsight at {status.url}: " + ("ready" if status.not_ready == {} else "not ready" if status.running else "not running"))
    if status.processes:
        table = Table(box=None)
        for title in ("process", "pid", "up", "restarts", "memory"):
            table.add_column(title, justify="left" if title == "process" else "right")
        for process in status.processes:
            state = (str(process.pid), _duration(process.up_s)) if process.pid else ("-", "restarting")
            table.add_row(process.name, *state, str(process.restarts), f"{process.memory / 1e6:.0f} MB")
        console.print(table)
    if status.servers:
        console.print(f"Embedded  {', '.join(map(versions.describe, status.servers))}", soft_wrap=True)
    if status.external:
        console.print(f"Servers   set by {' and '.join(status.external)}; scripts/stop does not stop them")
    if status.backlog is not None:
        waiting = f"{status.backlog.images} image{' is' if status.backlog.images == 1 else 's are'} waiting"
        console.print(f"Backlog   {waiting}, the oldest batch for {_duration(status.backlog.oldest_age_s)}" if status.backlog.images else "Backlog   none")
        ledger = ", ".join(f"{state} {count:,}" for state, count in (status.ledger or {}).items())
        console.print(f"Ledger    {ledger or 'not counted yet'}")
        if status.paused:
            console.print(f"Paused    {', '.join(f'{name} for {_duration(seconds)}' for name, seconds in status.paused.items())}")
        failed = ", ".join(f"{code} {count:,}" for code, count in (status.failed or {}).items())
        console.print(f"Failed    {failed or 'none'}")
    console.print(f"Disk      {status.disk_free / 1e9:.1f} GB free, uploads are refused below {status.disk_watermark / 1e9:.1f} GB")
    if status.running:
        console.print(f"Access    {status.access}", style=None if status.needs_credentials else "bold red", markup=False, soft_wrap=True)
    for line in status.advice:
        console.print(f"To do     {line}", markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
