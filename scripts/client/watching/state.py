"""What is known about the files of a watched folder, on disk, so that it survives a restart and needs little memory.

It is a database of SQLite, with one row for each file that was sent. A group of files is recorded before it is sent, so after a
crash it is sent again with the same Idempotency-Key.

States of a file: ``sending``, ``sent`` (accepted, without a result yet), ``done``, and those that need a person: ``failed``,
``refused`` (not accepted), ``missing`` (the service has it no more), ``different`` (it has other bytes), ``unknown`` (accepted,
but the response was lost), and ``changed`` (the bytes were changed, but not the modification time).
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from scripts.client.groups import UsageError
from scripts.client.journal import AlreadyRunning
from scripts.client.local_files import Identity

NEED_ATTENTION: Final = ("failed", "refused", "missing", "different", "unknown", "changed")
RETRIED: Final = frozenset({"failed", "refused", "missing"})
"""States in which a file is sent again if its modification time is changed, although its bytes are the same."""
_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
_KEPT_S: Final = 30 * 86_400.0
_CHUNK: Final = 1000
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  path BLOB PRIMARY KEY, device TEXT NOT NULL, inode TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
  state TEXT NOT NULL, key TEXT, position INTEGER, batch_id TEXT, detail TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_inode ON files (inode, mtime_ns);
CREATE INDEX IF NOT EXISTS by_key ON files (key, position) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_batch ON files (batch_id) WHERE state = 'sent';
CREATE INDEX IF NOT EXISTS by_state ON files (state);
CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, next_at REAL NOT NULL, pause REAL NOT NULL) WITHOUT ROWID;
"""
_SELECT: Final = "SELECT path, device, inode, size, mtime_ns, sha256, state, position, detail FROM files WHERE "


@dataclass(frozen=True, slots=True)
class WatchedFile:
    """A file that was sent. ``position`` is its index in the request. ``detail`` is a sentence about its state."""

    path: str
    identity: Identity
    sha256: str
    state: str = "sending"
    position: int = 0
    detail: str = ""


class State:
    """The state of one watched folder. Use it in one thread."""

    def __init__(self, path: Path, owner: dict[str, str]) -> None:
        """Name the file, and what it must belong to.

        :param owner: the settings that must be the same whenever this file is used, such as the folder, by name.
        """
        self._path, self._owner = path, owner
        self._db = sqlite3.connect(":memory:")

    def __enter__(self) -> Self:
        """Open and lock the file; create it if it does not exist.

        :raises AlreadyRunning: when another process uses it.
        :raises UsageError: when it is no such file, or belongs to another folder, service, store or camera.
        """
        self._db.close()
        try:
            self._db = sqlite3.connect(self._path, timeout=0.5, isolation_level=None)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("BEGIN EXCLUSIVE").connection.commit()  # the lock is held until the file is closed
            self._db.executescript(_TABLES)
            known = dict(self._db.execute("SELECT name, value FROM settings"))
            if not known:
                self._db.executemany("INSERT INTO settings VALUES (?, ?)", self._owner.items())
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise AlreadyRunning(f"The folder is already watched (another process uses {self._path}). Stop it first.") from None
            raise UsageError(f"{self._path} cannot be opened or written: {error}.") from None
        except sqlite3.DatabaseError:
            self._db.close()
            raise UsageError(f"{self._path} is not a file of --watch. Name another file with --resume.") from None
        if known and known != self._owner:
            self._db.close()
            different = ", ".join(name for name, value in self._owner.items() if known.get(name) != value)
            raise UsageError(f"{self._path} belongs to a watch with another value of: {different}. Name another file with --resume.")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which releases the lock."""
        self._db.close()

    def find(self, path: str) -> WatchedFile | None:
        """Return what is known about the file with a path."""
        return next(self._select("path = ?", os.fsencode(path)), None)

    def find_renamed(self, identity: Identity, sha256: str) -> WatchedFile | None:
        """Return a file with the same identity and content whose old path does not name it any more."""
        for file in self._select("inode = ? AND mtime_ns = ?", str(identity.inode), identity.mtime_ns):
            if file.identity == identity and file.sha256 == sha256 and not _still_names(file):
                return file
        return None

    def rename(self, file: WatchedFile, path: str) -> None:
        """Record that a file has another path now."""
        with self._transaction():
            self._db.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))
            self._db.execute("UPDATE files SET path = ? WHERE path = ?", (os.fsencode(path), os.fsencode(file.path)))

    def set_identity(self, path: str, identity: Identity) -> None:
        """Record that a file with the same content has another identity now."""
        values = (str(identity.device), str(identity.inode), identity.size, identity.mtime_ns, os.fsencode(path))
        self._db.execute("UPDATE files SET device = ?, inode = ?, size = ?, mtime_ns = ? WHERE path = ?", values)

    def begin(self, key: str, files: list[WatchedFile]) -> None:
        """Record durably that files are about to be sent in one request. Other files with this key do not belong to it any more."""
        with self._transaction():
            self._db.execute("DELETE FROM files WHERE key = ?", (key,))
            for position, file in enumerate(files):
                self._insert(replace(file, state="sending", position=position), key)

    def accept(self, key: str, batch_id: str | None, refused: dict[int, str]) -> None:
        """Record the response to a request.

        :param batch_id: the batch; None if the service has accepted nothing, or the batch is not known.
        :param refused: sentences about the images that were refused, by their positions.
        """
        accepted = "sent" if batch_id else "unknown"
        with self._transaction():
            for position, detail in refused.items():
                self._db.execute("UPDATE files SET state = 'refused', key = NULL, detail = ?, at = ? WHERE key = ? AND position = ?", (detail, time.time(), key, position))
            self._db.execute("UPDATE files SET state = ?, key = NULL, batch_id = ?, at = ? WHERE key = ?", (accepted, batch_id, time.time(), key))
            if batch_id:
                self._db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (batch_id, time.time() + _PAUSE_S, _PAUSE_S))

    def refuse(self, file: WatchedFile, detail: str) -> None:
        """Record that a file cannot be sent."""
        self._insert(replace(file, state="refused", detail=detail), None)

    def pending_groups(self) -> Iterator[tuple[str, float, list[WatchedFile]]]:
        """Yield the key, the time (Unix seconds) and the files of each request without a response."""
        keys = [row[0] for row in self._db.execute("SELECT DISTINCT key FROM files WHERE key IS NOT NULL")]
        for key in keys:
            (at,) = self._db.execute("SELECT min(at) FROM files WHERE key = ?", (key,)).fetchone()
            yield key, at, list(self._select("key = ? ORDER BY position", key))

    def due_batches(self, now: float, limit: int) -> list[str]:
        """Return the ids of batches whose results should be requested now (Unix seconds)."""
        return [row[0] for row in self._db.execute("SELECT id FROM batches WHERE next_at <= ? ORDER BY next_at LIMIT ?", (now, limit))]

    def files_of(self, batch_id: str) -> list[WatchedFile]:
        """Return the files in a batch that have no result yet."""
        return list(self._select("state = 'sent' AND batch_id = ?", batch_id))

    def record_results(self, batch_id: str, results: Iterable[tuple[str, str, str]]) -> None:
        """Record the path, the new state and a sentence of files in a batch, and when to ask for the others."""
        with self._transaction():
            for path, state, detail in results:
                self._db.execute("UPDATE files SET state = ?, detail = ?, at = ? WHERE path = ? AND batch_id = ?", (state, detail, time.time(), os.fsencode(path), batch_id))
            self.postpone(batch_id)

    def postpone(self, batch_id: str) -> None:
        """Ask for the results of a batch later, each time after a longer pause; never again if no file waits for them."""
        (left,) = self._db.execute("SELECT count(*) FROM files WHERE state = 'sent' AND batch_id = ?", (batch_id,)).fetchone()
        if left:
            self._db.execute("UPDATE batches SET pause = min(2 * pause, ?), next_at = ? + pause WHERE id = ?", (_MAX_PAUSE_S, time.time(), batch_id))
        else:
            self._db.execute("DELETE FROM batches WHERE id = ?", (batch_id,))

    def set_state(self, path: str, state: str, detail: str = "") -> None:
        """Record the state of a file."""
        self._db.execute("UPDATE files SET state = ?, detail = ? WHERE path = ?", (state, detail, os.fsencode(path)))

    def remove(self, path: str) -> None:
        """Forget a file."""
        self._db.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    def forget_vanished(self) -> None:
        """Forget the files that do not exist any more and whose last news is 30 days old."""
        after = b""
        before = time.time() - _KEPT_S
        while True:
            rows = self._db.execute("SELECT path FROM files WHERE path > ? AND at < ? AND state NOT IN ('sending', 'sent') ORDER BY path LIMIT ?", (after, before, _CHUNK)).fetchall()
            with self._transaction():
                self._db.executemany("DELETE FROM files WHERE path = ?", [(path,) for (path,) in rows if not os.path.lexists(path)])
            if len(rows) < _CHUNK:
                return
            after = rows[-1][0]

    def count(self) -> dict[str, int]:
        """Return the number of files in each state."""
        return dict(self._db.execute("SELECT state, count(*) FROM files GROUP BY state"))

    def list_some(self, state: str, limit: int) -> list[WatchedFile]:
        """Return some of the files in a state."""
        return list(self._select("state = ? LIMIT ?", state, limit))

    def _insert(self, file: WatchedFile, key: str | None) -> None:
        found = file.identity
        values = (os.fsencode(file.path), str(found.device), str(found.inode), found.size, found.mtime_ns, file.sha256, file.state, key, file.position, None, file.detail, time.time())
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _select(self, condition: str, *values: object) -> Iterator[WatchedFile]:
        with closing(self._db.execute(_SELECT + condition, values)) as rows:
            for path, device, inode, size, mtime_ns, sha256, state, position, detail in rows.fetchall():
                yield WatchedFile(os.fsdecode(path), Identity(int(device), int(inode), size, mtime_ns), sha256, state, position, detail)

    def _transaction(self) -> sqlite3.Connection:
        """Begin a transaction, which ends with the ``with`` block of the result."""
        self._db.execute("BEGIN IMMEDIATE")
        return self._db


def _still_names(file: WatchedFile) -> bool:
    try:
        return Identity.of(os.lstat(file.path)) == file.identity
    except OSError:
        return False


