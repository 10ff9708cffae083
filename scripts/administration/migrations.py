"""The commands ``migrate`` and ``status``."""

import json
import signal
import sys
from dataclasses import asdict
from types import FrameType
from typing import Final

import click

from scripts.administration.database import FAILED, with_database
from scripts.administration.progress_line import ProgressLine, describe_amount
from shared.storage.migrations import runner, update_end
from shared.storage.migrations.runner import Record, Status
from shared.storage.mongo import Db

_UNFINISHED: Final = "The update is not finished. When no process of the version before is running, run scripts/admin migrate --finish."


@click.command()
@click.option("--wait", type=click.FloatRange(0), default=runner.WAIT_S, show_default=True, metavar="SECONDS", help="How long to wait for another process that is running migrations.")
@click.option("--finish", is_flag=True, help="Also finish the update: no process of the version before is running any more.")
@with_database
def migrate(db: Db, wait: float, *, finish: bool) -> None:
    """Update the database for this version: create missing indexes, then run pending migrations.

    scripts/start, scripts/roll and docker compose up run this command themselves. Run it yourself before you start a new
    version in any other way, or if the log or /readyz reports a missing index.

    It is safe while the service is running, and safe to run at any time: old and new processes both work with the
    database before, during and after it; index builds block neither reads nor writes; and if nothing is to be done, it
    changes nothing. It can be interrupted at any moment, even with kill -9, and then continues where it was. If two are
    started, one waits for the other. A process that was killed holds the lock for up to 15 seconds.

    During a rolling update, processes of the version before omit what this version adds (the field top_score, by which lists of
    images are sorted), and need indexes that this version does not. When the last of them has ended, run the command with
    --finish: it visits the images that were accepted since the update began (after a return to the version before, also
    those that were processed again), and drops these indexes. Until then, batches
    cannot be cancelled and images cannot be processed again (409 update_unfinished). scripts/roll and scripts/start with a MongoDB of its own do so
    themselves. If no update is unfinished, --finish does nothing. Never use it while a process of the version before is
    running: that process would fail.

    There is no way back: take a backup first if you may want to return to data as it is now. The version before this one
    works with the updated database, except for images that were processed again. If the last attempt failed or was
    cancelled, it does not find the files of the result that is shown, and deletes them if the batch finished just before. So
    wait until all batches have been finished for some minutes before you return to it, and process images whose files are
    missing again after the next update. What it processes again itself is put right by the next --finish.

    \b
    Examples:
      scripts/admin migrate
      scripts/admin migrate --data /srv/shelfsight
      scripts/admin migrate --finish
      MONGODB_URL=mongodb://db.example/?replicaSet=rs scripts/admin migrate --wait 60
      docker compose run --rm --no-deps web python -m scripts.administration migrate

    \b
    Exit codes:
      0  the database is up to date
      1  a migration or an index failed, or MongoDB refused an operation
      2  the command line is wrong
      3  MongoDB does not respond
      4  another process was still running migrations after --wait seconds
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    line = ProgressLine()
    try:
        names = runner.migrate(db, line.show, wait_s=wait)
        finished = runner.finish_update(db, line.show, wait_s=wait) if finish else None
    finally:
        line.close()
    click.echo(f"The database is up to date. Migrations that were run: {', '.join(names) or 'none'}.")
    if finished is not None:
        click.echo(f"The update is finished. Images that were completed: {finished.completed}. What was dropped: {', '.join(finished.dropped) or 'nothing'}.")
    elif not update_end.is_update_finished(db):
        click.echo(_UNFINISHED)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_database
def status(db: Db, *, as_json: bool) -> None:
    """Show which migrations the database has, and whether indexes are missing. This changes nothing.

    A migration is done, running (also if its process was killed), failed, or pending. Migrations that only the database
    knows are "newer": a newer version has run them. That is normal during a rolling update; this version works as before.

    \b
    Examples:
      scripts/admin status
      scripts/admin status --json | jq .pending

    \b
    The members of the JSON object:
      up_to_date          whether "scripts/admin migrate" has nothing to do
      pending             names of the migrations that it would run
      missing_indexes     names of the indexes that it would create, as collection.index
      superseded_indexes  names of the indexes of older versions that are still there, and what each was for
      update_finished     whether no process of the version before can be running; if not, use migrate --finish
      returned            whether the indexes of older versions are back since the update was finished; migrate records it
      newer               names of the migrations that only the database knows
      holder              the process that is running migrations now, or null
      migrations          version, name, state, started_at, finished_at, error and progress of each

    \b
    Exit codes:
      0  the database is up to date
      1  migrations are pending or indexes are missing: run scripts/admin migrate
      2  the command line is wrong
      3  MongoDB does not respond
    """  # noqa: D301 -- click does not wrap a paragraph that begins with the character \b
    found = runner.read_status(db)
    click.echo(_as_json(found) if as_json else "\n".join(_lines(found)))
    sys.exit(0 if found.up_to_date else FAILED)


def _lines(found: Status) -> list[str]:
    lines = [_record_line(record, newer=record.name in found.newer) for record in found.migrations]
    if found.holder:
        lines.append(f"Migrations are being run by {found.holder}.")
    if found.missing_indexes:
        lines.append(f"Missing indexes: {', '.join(found.missing_indexes)}")
    lines += [f"Superseded index, which migrate --finish drops: {name} ({purpose})" for name, purpose in found.superseded_indexes.items()]
    if not found.update_finished and not found.pending:
        lines.append(_UNFINISHED)
    if found.newer:
        lines.append("A newer version has updated this database. This version works with it as before.")
    lines.append("The database is up to date." if found.up_to_date else "The database is not up to date; run scripts/admin migrate.")
    return lines


def _record_line(record: Record, *, newer: bool) -> str:
    amounts = "; ".join(f"{progress.step}{describe_amount(progress)}" for progress in record.progress) if record.state != "done" else ""
    when = f"{record.finished_at:%Y-%m-%d %H:%M:%S} UTC" if record.finished_at else ""
    parts = [record.error or "", when, amounts, "newer than this version" if newer else ""]
    return f"{record.name:<40}  {record.state:<8} {', '.join(part for part in parts if part)}".rstrip()


def _as_json(found: Status) -> str:
    members = asdict(found) | {"up_to_date": found.up_to_date}
    for record, shown in zip(found.migrations, members["migrations"], strict=True):
        shown["progress"] = {progress.step: {"done": progress.done, "total": progress.total} for progress in record.progress}
        for name in ("started_at", "finished_at"):
            shown[name] = shown[name] and f"{shown[name].isoformat(timespec='milliseconds')}Z"
    return json.dumps(members)


def _exit_on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)  # releases the lock on the way
