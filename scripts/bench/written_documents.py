"""Count the documents that are written while something runs, by collection, in the log of a replica set."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.storage.mongo import Db, Document

_WRITES: Final = frozenset({"i", "u", "d"})


@contextmanager
def count_written(db: Db) -> Iterator[Counter[str]]:
    """Provide a counter, which at the end of the context has the number of writes to each collection of ``db`` in the meantime.

    These include the writes of other processes. Each write in a transaction counts.
    """
    log = db.client.local["oplog.rs"]
    counter: Counter[str] = Counter()
    last = log.find_one(sort=[("$natural", -1)])
    assert last is not None  # noqa: S101 -- the log of a replica set is never empty
    yield counter
    for entry in log.find({"ts": {"$gt": last["ts"]}}):
        counter.update(_collections(entry, f"{db.name}."))


def _collections(entry: Document, prefix: str) -> list[str]:
    """Return the collection of each write of an entry. An entry of a transaction has several."""
    writes = entry["o"].get("applyOps", []) if entry["op"] == "c" else [entry]
    return [write["ns"].removeprefix(prefix) for write in writes if write["op"] in _WRITES and write["ns"].startswith(prefix)]
