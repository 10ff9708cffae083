"""Say how the installation over a data folder is doing, and what to do about what is not well: ``scripts/status``."""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table

from scripts.local import embedded_servers
from scripts.local.installation import DEFAULT_DATA, REMEMBERED, House, known
from scripts.local.start import readiness
from shared import settings
from shared.errors import ShelfsightError
from shared.ledger import audit
from shared.storage.mongo import connect

NOT_READY: Final = 1
NOT_RUNNING: Final = 3
_OLD_S: Final = 300.0
_REMEDIES: Final = {
    "bytes_missing": "an accepted file has gone from the blob store: restore it from a backup, then upload it again",
    "decoder_crash": "three processes ended while looking at such a picture; its original can be downloaded and looked at",
    "out_of_memory": "raise WORKER_CHILD_MEMORY_BYTES, or upload a smaller picture",
    "too_many_pixels": "upload a smaller picture, or raise LIMITS_MAX_PIXELS",
}
"""For codes where there is something to do; all others mean that the file itself is bad: upload a whole one."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: ``pid`` is None while it does not run; ``up_s`` in seconds, ``memory`` in bytes; ``restarts`` since the start."""

    name: str
    pid: int | None
    up_s: float
    memory: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Status:
    """What was found. ``not_ready`` is None when the web front does not answer; the ledger's part when MongoDB does not.

    ``external`` names the servers that are not ours (by their variables: a URL may hold a password); ``starting`` says what a
    start is doing right now.
    """

    running: bool
    starting: str | None
    url: str
    processes: list[Process]
    external: list[str]
    not_ready: dict[str, str] | None
    disk_free: int
    disk_watermark: int
    backlog: audit.Backlog | None
    ledger: dict[str, int] | None
    failed: dict[str, int] | None
    advice: list[str]


def main() -> None:
    """Print it; exit 0 when all is ready, 1 when it is not, 3 when nothing runs."""
    parser = argparse.ArgumentParser(prog="scripts/status", description="Processes, backlog, disk, failures, and what to do.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the folder given to scripts/start (default: data)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    try:
        house = known(asked.data.resolve())
        if house is None:
            sys.exit(f"Nothing was ever started over {asked.data}: scripts/start")
        adopt(house)
        status = look(house)
    except PermissionError:
        sys.exit(f"error: {asked.data} belongs to somebody else: ask as that user")
    if asked.json:
        print(json.dumps(asdict(status)))
    else:
        _show(status)
    sys.exit(NOT_RUNNING if not status.running else NOT_READY if status.not_ready != {} else 0)


def adopt(house: House) -> None:
    """Let this process read the settings that the house was started with, not those of the shell it is in."""
    for name in REMEMBERED:
        os.environ.pop(name, None)
    os.environ.update(house.given)


def look(house: House) -> Status:
    """Find out how a house is doing. Takes a few seconds at most, also when nothing answers."""
    running = house.holder() is not None
    told = house.told() if running else None
    url = f"http://{embedded_servers.LOOPBACK}:{house.port}"
    backlog, ledger, failed = _read_ledger(house) if running else (None, None, None)
    blobs = settings.Blobs()
    found = Status(
        running=running,
        starting=told.text if told else None,
        url=url,
        processes=[_process(house, name) for name in _names(house)] if running else [],
        external=[name for name, own in (("MONGODB_URL", house.own_mongo), ("REDIS_URL", house.own_redis)) if not own],
        not_ready=readiness(url) if running else None,
        disk_free=shutil.disk_usage(house.data / "blobs").free,
        disk_watermark=blobs.min_free_bytes,
        backlog=backlog,
        ledger=ledger,
        failed=failed,
        advice=[],
    )
    found.advice.extend(advise(found, house))
    return found


def advise(status: Status, house: House) -> list[str]:
    """Say what to do, the most urgent first; nothing when all is well."""
    if not status.running:
        return ["Nothing runs: scripts/start"]
    advice = []
    if status.disk_free < status.disk_watermark:
        advice.append(
            f"The disk is below its watermark: uploads are refused (507) until {status.disk_watermark / 1e9:.1f} GB are free "
            f"under {house.data}. Delete batches that nobody needs, or move the folder to a larger disk."
        )
    down = [process.name for process in status.processes if process.pid is None]
    if down:
        advice.append(f"Being restarted, or failing again and again: {', '.join(down)}; see {house.logs}/<name>.log")
    advice += _until_ready(status, house)
    if status.ledger is not None and (lost := _missing(status.ledger)):
        advice.append(f"The ledger does not balance: {lost} accepted images have no document. Somebody removed them by hand; restore a backup.")
    if status.backlog is not None and status.backlog.oldest_age_s > _OLD_S:
        advice.append("The oldest batch has waited for more than five minutes: start with more --workers, or add machines.")
    for code in status.failed or {}:
        if code in _REMEDIES:
            advice.append(f"{code}: {_REMEDIES[code]}")
    return advice


def _until_ready(status: Status, house: House) -> list[str]:
    if status.starting:
        return [f"It is starting: {status.starting}; see {house.logs}/guard.log"]
    if status.not_ready is None:
        return [f"The web front does not answer; see {house.logs}/web.log"]
    return [f"{name}: {detail}" for name, detail in status.not_ready.items()]


def _names(house: House) -> list[str]:
    servers = [name for name, own in (("mongod", house.own_mongo), ("redis", house.own_redis)) if own]
    return ["supervisor", *servers, "web", *(f"worker-{number}" for number in range(1, house.workers + 1)), "inspector", "sweep"]


def _process(house: House, name: str) -> Process:
    try:
        restarts = max(0, (house.run / f"{name}.starts").stat().st_size - 1)
    except OSError:
        restarts = 0
    pid = house.pid(name)
    try:
        if pid is not None:
            process = psutil.Process(pid)
            everyone = [process, *process.children(recursive=True)] if name != "supervisor" else [process]
            memory = sum(one.memory_info().rss for one in everyone)
            return Process(name, pid, time.time() - process.create_time(), memory, restarts)
    except psutil.Error:
        pass  # it ended while we looked
    return Process(name, None, 0.0, 0, restarts)


def _read_ledger(house: House) -> tuple[audit.Backlog | None, dict[str, int] | None, dict[str, int] | None]:
    try:
        mongo = settings.Mongo(url=embedded_servers.mongo_url(house.kept_ports()["mongod"])) if house.own_mongo else settings.Mongo()
        db = connect(mongo, app="status")
        return audit.backlog(db), audit.balance(db), audit.failures_by_code(db)
    except (ShelfsightError, PyMongoError, KeyError):
        return None, None, None


def _missing(ledger: dict[str, int]) -> int:
    return ledger["received"] - sum(count for state, count in ledger.items() if state != "received")


def _show(status: Status) -> None:
    console = Console(highlight=False)
    console.print(f"Shelfsight at {status.url}: " + ("ready" if status.not_ready == {} else "not ready" if status.running else "not running"))
    if status.processes:
        table = Table(box=None)
        for title in ("process", "pid", "up", "restarts", "memory"):
            table.add_column(title, justify="left" if title == "process" else "right")
        for one in status.processes:
            state = (str(one.pid), _span(one.up_s)) if one.pid else ("-", "restarting")
            table.add_row(one.name, *state, str(one.restarts), f"{one.memory / 1e6:.0f} MB")
        console.print(table)
    if status.external:
        console.print(f"Servers   given from outside by {' and '.join(status.external)}; scripts/stop leaves them alone")
    if status.backlog is not None and status.ledger is not None:
        waiting = f"{status.backlog.images} images wait"
        console.print(f"Backlog   {waiting}, the oldest batch for {_span(status.backlog.oldest_age_s)}" if status.backlog.images else "Backlog   nothing waits")
        console.print("Ledger    " + ", ".join(f"{state} {count:,}" for state, count in status.ledger.items()))
        failed = ", ".join(f"{code} {count:,}" for code, count in (status.failed or {}).items())
        console.print(f"Failed    {failed or 'none'}")
    console.print(f"Disk      {status.disk_free / 1e9:.1f} GB free, uploads stop below {status.disk_watermark / 1e9:.1f} GB")
    for line in status.advice:
        console.print(f"To do     {line}", markup=False, soft_wrap=True)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
