"""Brings a database up to date: creates the missing indexes, then runs the pending migrations."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.errors import Environment, ShelfsightError
from shared.storage.indexes import IndexBuild, create_indexes, find_missing_indexes, find_superseded_indexes
from shared.storage.migrations import late_results, late_shown, update_end
from shared.storage.migrations.errors import Failed, Locked, MigrationError
from shared.storage.migrations.lock import MigrationLock, find_holder
from shared.storage.migrations.registry import Migration, find_migrations, select_pending
from shared.storage.migrations.run import Progress, Report, Run
from shared.storage.mongo import Db, translate_errors

WAIT_S: Final = 3600.0
_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Record:
    """What a database records about one migration, or, for a pending migration that never ran, what the code knows.

    ``state`` is ``pending``, ``running``, ``done`` or ``failed``. A migration that is running although nobody holds the
    lock was interrupted. ``progress`` contains the number of documents that are done and in total, for each collection.
    """

    version: int
    name: str
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    progress: tuple[Progress, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a database, compared with this code.

    ``migrations`` contains all migrations that the code or the database knows. ``newer`` contains the names of those
    that only the database knows, because newer code has run them. ``superseded_indexes`` are those of older versions that the
    database still has, with their purpose; see ``shared.storage.schema.superseded``. ``update_finished`` says whether no process of
    the version before can be running (``update_end``). ``returned`` says that they can, because somebody has returned to it after
    the update was finished, and that ``migrate`` has not recorded this yet. ``holder`` describes the process that is running
    migrations now; None if there is none.
    """

    migrations: tuple[Record, ...]
    newer: tuple[str, ...]
    pending: tuple[str, ...]
    missing_indexes: tuple[str, ...]
    superseded_indexes: dict[str, str]
    update_finished: bool
    returned: bool
    holder: str | None

    @property
    def up_to_date(self) -> bool:
        """Whether ``migrate`` has nothing to do: create indexes, run migrations, or record that an update has begun."""
        return not self.pending and not self.missing_indexes and not self.returned


def read_status(db: Db, known: Sequence[Migration] | None = None) -> Status:
    """Return the state of a database.

    :param known: the migrations to compare the database with; by default, those of this code.
    :raises StoreAway: when MongoDB does not respond.
    :raises Inconsistent: when neither this code nor a newer version of it can have run the recorded migrations.
    """
    known = find_migrations() if known is None else known
    records = _read_records(db)
    pending = select_pending(known, [(record.version, record.name, record.state == "done") for record in records])
    superseded = find_superseded_indexes(db)
    versions = {record.version for record in records}
    unseen = [Record(migration.version, migration.name, "pending") for migration in known if migration.version not in versions]
    return Status(
        migrations=tuple(sorted([*records, *unseen], key=lambda record: record.version)),
        newer=tuple(record.name for record in records if record.version > len(known)),
        pending=tuple(migration.name for migration in pending),
        missing_indexes=tuple(str(name) for name in find_missing_indexes(db)),
        superseded_indexes=superseded,
        update_finished=update_end.is_update_finished(db),
        returned=bool(superseded) and update_end.is_recorded(db),
        holder=find_holder(db),
    )


def migrate(db: Db, report: Report = lambda _: None, *, wait_s: float = WAIT_S, known: Sequence[Migration] | None = None) -> list[str]:
    """Create the missing indexes and run the pending migrations; do nothing if there are none.

    If another process is doing so, wait until it has finished or died.

    :param report: called with the progress, several times per second at most.
    :param wait_s: seconds to wait for another process.
    :param known: the migrations to run; by default, those of this code.
    :returns: the names of the migrations that were run.
    :raises Locked: when another process was still running migrations after ``wait_s`` seconds.
    :raises MigrationError: when a migration fails, this process lost the lock, or the database is inconsistent.
    :raises IndexConflict: when another index has the name or the keys of a declared index.
    :raises StoreAway: when MongoDB does not respond. As after all other errors, a further call continues.
    """
    known = find_migrations() if known is None else known
    lock = MigrationLock(db)
    until = time.monotonic() + wait_s
    while not read_status(db, known).up_to_date:
        holder = lock.acquire()
        if holder is None:
            with _released(lock):
                return _migrate(db, lock, report, known)
        _wait(holder, report, until, wait_s)
    return []


@dataclass(frozen=True, slots=True)
class Finished:
    """How many documents the end of an update has completed, and the names of the indexes and collections that it has dropped."""

    completed: int
    dropped: tuple[str, ...]


def finish_update(db: Db, report: Report = lambda _: None, *, wait_s: float = WAIT_S) -> Finished:
    """Finish an update: complete what processes of the version before have written, and drop what only they have used.

    Call this function after the last of them has ended, and after ``migrate``. If no update is unfinished, it does nothing.
    See ``late_results``, ``late_shown`` and ``update_end``.

    :param report: called with the progress.
    :param wait_s: seconds to wait for another process that is running migrations.
    :raises Locked: when another process was still running migrations after ``wait_s`` seconds.
    :raises LockLost: when this process lost the lock.
    :raises StoreAway: when MongoDB does not respond. As after all other errors, the function can be called again.
    """
    if update_end.is_update_finished(db):
        return Finished(0, ())
    lock = MigrationLock(db)
    until = time.monotonic() + wait_s
    while (holder := lock.acquire()) is not None:
        _wait(holder, report, until, wait_s)
    with _released(lock):
        if update_end.is_update_finished(db):
            return Finished(0, ())
        update_end.record_begin(db)
        completed = late_results.add_scores(db, lock, report)
        if update_end.has_returned(db):
            completed += late_shown.correct(db, lock, report)
        dropped = update_end.drop_superseded(db, lock, report)
        lock.keep()
        update_end.record_end(db)
    return Finished(completed, tuple(dropped))


@contextmanager
def _released(lock: MigrationLock) -> Iterator[None]:
    """Release a lock at the end of the ``with`` block."""
    try:
        yield
    finally:
        with suppress(ShelfsightError):  # if the lock cannot be released, it will expire
            lock.release()


def _wait(holder: str, report: Report, until: float, wait_s: float) -> None:
    """Wait for a moment for the process that holds the lock.

    :raises Locked: when the time is over.
    """
    if time.monotonic() > until:
        raise Locked(f"The lock of the migrations is still held by {holder}, after a wait of {wait_s:.0f} s. Run the command again later.")
    report(Progress(f"waiting for {holder}, which is running the migrations"))
    time.sleep(_POLL_S)  # poll, because the other process sends no notification


def _migrate(db: Db, lock: MigrationLock, report: Report, known: Sequence[Migration]) -> list[str]:
    def on_wait(build: IndexBuild) -> None:
        lock.keep()
        report(Progress(f"building the indexes of {build.collection}", build.done, build.total))

    create_indexes(db, on_wait)
    pending = set(read_status(db, known).pending)
    chosen = [migration for migration in known if migration.name in pending]
    for migration in chosen:
        run = Run(db, lock, migration.version, migration.name, report)
        lock.keep()
        run.start()
        report(Progress(f"{migration.name}: {migration.summary}"))
        try:
            migration.apply(run)
        except (MigrationError, Environment):
            raise
        except Exception as error:
            with suppress(MigrationError, ShelfsightError):  # the error itself is more important
                run.fail(error)
            raise Failed(f"The migration {migration.name} failed: {type(error).__name__}.") from error
        run.finish()
    if find_superseded_indexes(db):  # also after a return to the version before, which has created its indexes again
        update_end.record_begin(db)
    return [migration.name for migration in chosen]


def _read_records(db: Db) -> list[Record]:
    with translate_errors():
        return [_record(document) for document in db.migrations.find().sort("_id", 1)]


def _record(document: dict[str, Any]) -> Record:
    progress = tuple(Progress(name, state["done"], state["total"]) for name, state in document["progress"].items())
    fields = {name: document[name] for name in ("name", "state", "started_at", "finished_at", "error")}
    return Record(document["_id"], **fields, progress=progress)
