"""Reads batches without their images, as a reader with rights in some stores sees them.

For each reader, a batch consists of the images in their stores. If it also has images of other stores, the reader sees
a part of it: the total, the counts and the state are those of the part. The part of an open batch is open.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from shared.allowed_stores import AllowedStores
from shared.ledger.open_counts import count_open, count_parts
from shared.states import CLOSED, BatchState, ImageState, batch_state
from shared.storage import schema
from shared.storage.mongo import Db, Document

_SHOWN: Final = dict.fromkeys(schema.hidden_fields(schema.Batch), 0)
_SHOWN_AND_STORES: Final = {name: value for name, value in _SHOWN.items() if name != "stores"}


def load_headers(db: Db, ids: Sequence[str], stores: AllowedStores, deadline_ms: int) -> list[Document]:
    """Return batches with their counts and without hidden fields, in the order of ``ids``.

    The result omits batches that are not listed any more, and those that have no image of ``stores``.

    :raises PyMongoError: when MongoDB does not respond, or needs longer than ``deadline_ms`` for a query.
    """
    if not ids:
        return []
    query = {"_id": {"$in": list(ids)}, "listed": True}
    shown = _SHOWN if stores is None else _SHOWN_AND_STORES
    found = db.batches.find(query, shown).batch_size(len(ids) + 1).max_time_ms(deadline_ms)
    headers: dict[str, Document] = {}
    parts: dict[str, frozenset[str]] = {}
    for row in found:
        if stores is not None:
            all_stores = row.pop("stores")  # these can be a megabyte, so keep them only of a part
            visible = stores.intersection(all_stores)
            if not visible:
                continue
            if not visible.issuperset(all_stores):
                parts[row["_id"]] = visible
        headers[row["_id"]] = row
    batches = [headers[batch_id] for batch_id in ids if batch_id in headers]
    _complete_counts(db, batches, parts, deadline_ms)
    return batches


def _complete_counts(db: Db, batches: list[Document], parts: Mapping[str, frozenset[str]], deadline_ms: int) -> None:
    whole_ids = [batch["_id"] for batch in batches if batch["counts"] is None and batch["_id"] not in parts]
    counts = count_open(db, whole_ids, deadline_ms) | count_parts(db, parts, deadline_ms)
    for batch in batches:
        if batch["_id"] in counts:
            _set_counts(batch, counts[batch["_id"]], is_part=batch["_id"] in parts)


def _set_counts(batch: Document, counts: dict[str, int], *, is_part: bool) -> None:
    """Set the counts and the state of a batch or of a part from the states of its images.

    An open batch is shown as ``processing`` until it has been closed, even if all its images are already finished.
    """
    is_open = batch["counts"] is None
    batch["counts"] = {state.value: counts.get(state.value, 0) for state in ImageState}
    if is_part:
        batch["total"] = sum(batch["counts"].values())
    state = batch_state(counts, batch["total"])
    batch["status"] = BatchState.PROCESSING.value if is_open and state in CLOSED else state.value
